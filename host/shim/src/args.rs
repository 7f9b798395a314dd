//! The command line as containerd writes it: Go's flags, then an action.

use std::path::PathBuf;

/// What the shim is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the pod's daemon and print its address.
    Start,
    /// Be the daemon; its socket is standard input.
    Serve,
    /// Clean up after a daemon that died.
    Delete,
    /// Print the version (`-v`).
    Version,
    /// Print what this runtime can do (`-info`).
    Info,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) action: Action,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// containerd's gRPC address: not used, events go over ttrpc.
    pub(crate) address: String,
    /// containerd's binary, for publishing events without ttrpc: not used.
    pub(crate) publish_binary: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) debug: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("argument {0:?} is not UTF-8")]
    NotUtf8(String),
    #[error("unknown flag {0:?}; known: -namespace -id -address -publish-binary -bundle -debug -v -info")]
    UnknownFlag(String),
    #[error("flag {0:?} needs a value")]
    NoValue(String),
    #[error("flag {flag:?} cannot be {value:?}; use true or false")]
    NotBool { flag: String, value: String },
    #[error("unknown action {0:?}; containerd runs `start` and `delete`")]
    UnknownAction(String),
    #[error("no action: containerd runs `start` and `delete`; try -v or -info")]
    NoAction,
}

impl Args {
    /// Parses the arguments that follow the program's name.
    pub(crate) fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, ArgsError> {
        let mut args = Self {
            action: Action::Start,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            publish_binary: String::new(),
            bundle: None,
            debug: false,
        };
        let mut action = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let word = word.into_string().map_err(|word| ArgsError::NotUtf8(word.to_string_lossy().into_owned()))?;
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                action = Some(match word.as_str() {
                    "start" => Action::Start,
                    "serve" => Action::Serve,
                    "delete" => Action::Delete,
                    _ => return Err(ArgsError::UnknownAction(word)),
                });
                // Whatever follows is not ours, as with Go's flags.
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let mut value = || match inline {
                Some(value) => Ok(value.to_owned()),
                None => words
                    .next()
                    .and_then(|value| value.into_string().ok())
                    .ok_or_else(|| ArgsError::NoValue(name.to_owned())),
            };
            match name {
                "namespace" => args.namespace = value()?,
                "id" => args.id = value()?,
                "address" => args.address = value()?,
                "publish-binary" => args.publish_binary = value()?,
                "bundle" => args.bundle = Some(value()?).filter(|bundle| !bundle.is_empty()).map(PathBuf::from),
                "debug" => args.debug = boolean(name, inline)?,
                "v" | "version" if boolean(name, inline)? => action = Some(Action::Version),
                "info" if boolean(name, inline)? => action = Some(Action::Info),
                "v" | "version" | "info" => {}
                _ => return Err(ArgsError::UnknownFlag(word)),
            }
            if matches!(action, Some(Action::Version | Action::Info)) {
                break;
            }
        }
        args.action = action.ok_or(ArgsError::NoAction)?;
        Ok(args)
    }
}

fn boolean(flag: &str, value: Option<&str>) -> Result<bool, ArgsError> {
    match value {
        None | Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(value) => Err(ArgsError::NotBool { flag: flag.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, ArgsError> {
        Args::parse(words.iter().map(Into::into))
    }

    #[test]
    fn containerds_own_command_line_is_understood() {
        let args = parse(&[
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "web",
            "-debug",
            "start",
        ])
        .unwrap();
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.namespace.as_str(), args.id.as_str(), args.debug), ("k8s.io", "web", true));
    }

    #[test]
    fn values_may_be_inline_and_flags_have_one_dash_or_two() {
        let args = parse(&["--id=web", "-bundle=/b", "--debug=false", "delete"]).unwrap();
        assert_eq!((args.action, args.debug), (Action::Delete, false));
        assert_eq!(args.bundle.as_deref(), Some(std::path::Path::new("/b")));
    }

    #[test]
    fn questions_need_no_action() {
        assert_eq!(parse(&["-v"]).unwrap().action, Action::Version);
        assert_eq!(parse(&["-info"]).unwrap().action, Action::Info);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse(&["-what", "start"]), Err(ArgsError::UnknownFlag("-what".into())));
        assert_eq!(parse(&["-id"]), Err(ArgsError::NoValue("id".into())));
        assert_eq!(parse(&["run"]), Err(ArgsError::UnknownAction("run".into())));
        assert_eq!(parse(&[]), Err(ArgsError::NoAction));
    }
}
