//! The process of a container, or of an exec: arguments, environment, user, capabilities.

use std::collections::BTreeMap;
use std::path::PathBuf;

use husk_image::Image;
use husk_spec::defaults::PATH;
use oci_spec::runtime::{LinuxCapabilities, PosixRlimitBuilder, PosixRlimitType, Process, User};

use super::user::ContainerUser;
use crate::api::ContainerConfig;
use crate::error::Error;

/// Open files of a process: what containerd's unit file gives to containers.
const NOFILE: u64 = 1_048_576;

/// The first process of a container.
///
/// # Errors
///
/// When there is nothing to run, or a working directory that is no path.
pub(super) fn first(
    config: &ContainerConfig,
    image: &Image,
    user: &ContainerUser,
    capabilities: LinuxCapabilities,
    hostname: &str,
) -> Result<Process, Error> {
    let of_image = image.config.config().clone().unwrap_or_default();
    let args = args(config, of_image.entrypoint(), of_image.cmd());
    if args.first().is_none_or(String::is_empty) {
        let text = "there is nothing to run: the image has neither entrypoint nor command, and none was given";
        return Err(Error::InvalidArgument(text.into()));
    }
    let directory = [Some(&config.working_dir), of_image.working_dir().as_ref()]
        .into_iter()
        .flatten()
        .find(|directory| !directory.is_empty())
        .map_or("/", String::as_str);
    if !directory.starts_with('/') {
        return Err(Error::InvalidArgument(format!("working_dir = {directory:?}: it must be an absolute path")));
    }
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let score = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()).map(|limits| limits.oom_score_adj);
    let score = score.and_then(|score| i32::try_from(score).ok());
    let mut oci_user = User::default();
    oci_user.set_uid(user.ids.uid).set_gid(user.ids.gid).set_additional_gids(Some(user.ids.groups.clone()));
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).hard(NOFILE).soft(NOFILE).build();
    let limits = limit.map_err(|error| Error::Internal(format!("process.rlimits: {error}")))?;
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(oci_user)
        .set_args(Some(args))
        .set_env(Some(env(config, of_image.env().as_deref().unwrap_or_default(), &user.home, hostname)?))
        .set_cwd(PathBuf::from(directory))
        .set_capabilities(Some(capabilities))
        .set_rlimits(Some(vec![limits]))
        .set_oom_score_adj(score)
        .set_no_new_privileges(Some(context.no_new_privs));
    Ok(process)
}

/// A further process of the container whose first one is `first`.
#[must_use]
pub fn exec_process(first: &Process, command: &[String], terminal: bool) -> Process {
    let mut process = first.clone();
    if terminal {
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(env));
    }
    process.set_args(Some(command.to_vec())).set_terminal(Some(terminal)).set_console_size(None);
    process
}

/// As Kubernetes documents it: a command replaces the image's entrypoint and its arguments, arguments alone replace only
/// the latter.
fn args(config: &ContainerConfig, entrypoint: &Option<Vec<String>>, cmd: &Option<Vec<String>>) -> Vec<String> {
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    if !config.command.is_empty() {
        return config.command.iter().chain(&config.args).cloned().collect();
    }
    let rest = if config.args.is_empty() { of_image(cmd) } else { config.args.clone() };
    of_image(entrypoint).into_iter().chain(rest).collect()
}

fn env(config: &ContainerConfig, image: &[String], home: &str, hostname: &str) -> Result<Vec<String>, Error> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            order.push(name.to_owned());
        }
    };
    set("PATH", PATH);
    set("HOME", if home.is_empty() { "/" } else { home });
    set("HOSTNAME", hostname);
    if config.tty {
        set("TERM", "xterm");
    }
    for entry in image {
        // An entry without "=" would be no variable.
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            set(name, value);
        }
    }
    for variable in &config.envs {
        let value = std::str::from_utf8(&variable.value)
            .ok()
            .filter(|value| !value.contains('\0') && !variable.key.is_empty() && !variable.key.contains(['=', '\0']));
        let Some(value) = value else {
            let text = format!("envs: {:?} cannot be a variable: its name or value is not plain UTF-8", variable.key);
            return Err(Error::InvalidArgument(text));
        };
        set(&variable.key, value);
    }
    Ok(order.into_iter().map(|name| format!("{name}={}", values.get(&name).map_or("", String::as_str))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KeyValue;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_replaces_entrypoint_and_arguments() {
        let (entrypoint, cmd) = (Some(words("/entry -x")), Some(words("default")));
        for (command, given, expected) in [
            ("", "", "/entry -x default"),
            ("", "a b", "/entry -x a b"),
            ("sh -c", "", "sh -c"),
            ("sh", "-c true", "sh -c true"),
        ] {
            let config = ContainerConfig { command: words(command), args: words(given), ..ContainerConfig::default() };
            assert_eq!(args(&config, &entrypoint, &cmd), words(expected));
        }
    }

    #[test]
    fn what_kubelet_sets_replaces_what_the_image_sets() {
        let value = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        let config = ContainerConfig { envs: vec![value("LANG", "de"), value("A", "")], ..ContainerConfig::default() };
        let env = env(&config, &["LANG=C".into(), "broken".into(), "PATH=/bin".into()], "/root", "web").unwrap();
        assert_eq!(env, ["PATH=/bin", "HOME=/root", "HOSTNAME=web", "LANG=de", "A="]);
        let config = ContainerConfig { envs: vec![value("A=B", "")], ..ContainerConfig::default() };
        assert!(super::env(&config, &[], "", "web").is_err());
    }
}
