//! From the flags of `husk run` to a plan.

use anyhow::{bail, ensure};

use super::{Args, Place, devices, flags, mounts, security, users};
use crate::error::Advise as _;
use crate::pods::ids;
use crate::pods::plan::{CapabilityPlan, ContainerPlan, ExitPolicy, Kind, Limits, PodPlan, RestartPolicy, UserPlan};
use crate::spec::resources;
use husk_spec::signals;

/// `no`, `always`, `on-failure` as podman has them.
pub(super) fn restart(text: &str) -> Result<RestartPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "no" | "never" => Ok(RestartPolicy::Never),
        "always" | "unless-stopped" => Ok(RestartPolicy::Always),
        "on-failure" | "onfailure" => Ok(RestartPolicy::OnFailure),
        _ => Err("use no, on-failure or always".to_owned()),
    }
}

pub(super) fn place(args: &Args) -> anyhow::Result<Place> {
    let Some(wanted) = &args.pod else { return Ok(Place::Private) };
    let place = match wanted.strip_prefix("new:") {
        Some(name) => {
            ensure!(flags::is_name(name), "--pod {wanted}: \"{name}\" is no name: {}", flags::NAME_RULE);
            Place::New(name.to_owned())
        }
        None if wanted.is_empty() => bail!("--pod needs a name"),
        None => Place::Existing(wanted.clone()),
    };
    if matches!(place, Place::Existing(_)) && args.hostname.is_some() {
        return Err(anyhow::anyhow!("-h: the host name is the pod's, and the pod is there already"))
            .hint("leave -h away, or give it when the pod is made");
    }
    if matches!(place, Place::Existing(_)) && args.domainname.is_some() {
        return Err(anyhow::anyhow!("--domainname: the domain name is the pod's, and the pod is there already"))
            .hint("leave --domainname away, or give it when the pod is made");
    }
    if matches!(place, Place::Existing(_)) && args.shm_size.is_some() {
        return Err(anyhow::anyhow!("--shm-size: /dev/shm is the pod's, and the pod is there already"))
            .hint("leave --shm-size away, or give it when the pod is made");
    }
    if matches!(place, Place::Existing(_)) && args.cgroup_parent.is_some() {
        return Err(anyhow::anyhow!("--cgroup-parent: the cgroup is the pod's, and the pod is there already"))
            .hint("leave --cgroup-parent away, or give it when the pod is made");
    }
    if let (Place::Existing(_), Some(flag)) = (&place, args.network.given()) {
        return Err(anyhow::anyhow!("{flag}: the network is the pod's, and the pod is there already"))
            .hint(format!("leave {flag} away, or give it when the pod is made"));
    }
    Ok(place)
}

/// A new pod with this container in it.
pub(super) fn pod(args: &Args, place: &Place) -> anyhow::Result<PodPlan> {
    let container = container(args)?;
    let (name, private) = match place {
        Place::New(name) => (name.clone(), false),
        _ => (container.name.clone(), true),
    };
    let hostname = args.hostname.clone().unwrap_or_else(|| default_hostname(&name));
    let good = !hostname.is_empty()
        && hostname.len() <= 63
        && hostname.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    ensure!(good, "-h {hostname}: a host name has 1 to 63 letters, digits, - and .");
    Ok(PodPlan {
        name,
        namespace: "default".to_owned(),
        uid: ids::uid(),
        hostname,
        domainname: args.domainname.clone(),
        restart_policy: container.restart,
        exit_policy: if private { ExitPolicy::Stop } else { ExitPolicy::Continue },
        private,
        qualified_names: false,
        network: args.network.plan()?,
        shm_size: args.shm_size,
        cgroup_parent: args.cgroup_parent.clone(),
        containers: vec![container],
        ..PodPlan::default()
    })
}

/// Names may have characters that host names may not.
fn default_hostname(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

pub(super) fn container(args: &Args) -> anyhow::Result<ContainerPlan> {
    let name = args.name.clone().unwrap_or_else(ids::name);
    ensure!(flags::is_name(&name), "--name {name}: it is no name: {}", flags::NAME_RULE);
    ensure!(args.pids_limit != 0 && args.pids_limit >= -1, "--pids-limit must be -1 or more than 0");
    if let Some(memory) = args.memory
        && memory < resources::MIN_MEMORY
    {
        bail!("--memory: {memory} bytes are too little to start a container; the least is 4m");
    }
    let security = security::of(args)?;
    Ok(ContainerPlan {
        kind: Kind::App,
        image: args.image.clone(),
        pull: args.pull,
        entrypoint: args.entrypoint.as_deref().map(flags::entrypoint).transpose()?,
        args: (!args.command.is_empty()).then(|| args.command.clone()),
        env: flags::env(&args.env, &args.env_file)?,
        workdir: args.workdir.clone(),
        user: user(args.user.as_deref()),
        users: users::all(args)?,
        mounts: mounts::all(args)?,
        devices: devices::all(args)?,
        limits: Limits {
            memory: args.memory,
            cpu_milli: args.cpus,
            cpu_shares: None,
            pids: (args.pids_limit > 0).then_some(args.pids_limit),
        },
        capabilities: CapabilityPlan { add: args.cap_add.clone(), drop: args.cap_drop.clone() },
        read_only_rootfs: args.read_only,
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp,
        exposure: security.exposure,
        rlimits: args.ulimit.iter().map(|text| flags::ulimit(text)).collect::<anyhow::Result<Vec<_>>>()?,
        terminal: args.tty,
        stdin: args.interactive,
        stop_signal: args.stop_signal.as_deref().map(signals::parse).transpose()?,
        stop_timeout: args.stop_timeout,
        restart: args.restart,
        auto_remove: args.rm,
        labels: flags::labels(&args.label),
        name,
        ..ContainerPlan::default()
    })
}

fn user(text: Option<&str>) -> UserPlan {
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (user, group) = match text.unwrap_or_default().split_once(':') {
        Some((user, group)) => (part(user), part(group)),
        None => (text.and_then(part), None),
    };
    UserPlan { user, group, ..UserPlan::default() }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::{Cli, Command};
    use crate::pods::plan::{IdRange, PullPolicy, SeccompPlan, UsersPlan};

    fn args(flags: &str) -> Args {
        let words = ["husk", "run"].into_iter().chain(flags.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_a_plan() {
        let args = args(
            "--rm -it --name web -m 128m --cpus 0.5 -e A=1 -v db:/data:ro -w /srv -u 7:8 -h box --read-only \
             --pids-limit -1 --cap-drop ALL --stop-signal INT --pull never nginx sh -c --x",
        );
        let pod = pod(&args, &place(&args).unwrap()).unwrap();
        assert!(pod.private);
        assert_eq!((pod.name.as_str(), pod.hostname.as_str(), pod.exit_policy), ("web", "box", ExitPolicy::Stop));
        let [container] = pod.containers.as_slice() else { panic!("one container") };
        assert_eq!(container.args.as_ref().unwrap(), &["sh", "-c", "--x"]);
        assert_eq!(
            container.limits,
            Limits { memory: Some(128 << 20), cpu_milli: Some(500), cpu_shares: None, pids: None }
        );
        assert_eq!((container.user.user.as_deref(), container.user.group.as_deref()), (Some("7"), Some("8")));
        assert!(container.terminal && container.stdin && container.auto_remove && container.read_only_rootfs);
        assert_eq!((container.stop_signal, container.pull), (Some(2), PullPolicy::Never));
    }

    #[test]
    fn a_pod_may_be_new_or_there() {
        assert!(matches!(place(&args("--pod new:web nginx")).unwrap(), Place::New(name) if name == "web"));
        assert!(matches!(place(&args("--pod web nginx")).unwrap(), Place::Existing(name) if name == "web"));
        assert!(matches!(place(&args("nginx")).unwrap(), Place::Private));
        assert!(place(&args("--pod new: nginx")).is_err());
        assert!(place(&args("--pod web -h x nginx")).is_err());
        let args = args("--pod new:web --name one nginx");
        let pod = pod(&args, &place(&args).unwrap()).unwrap();
        assert_eq!((pod.name.as_str(), pod.exit_policy, pod.private), ("web", ExitPolicy::Continue, false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            "--name a/b nginx",
            "-m 1m nginx",
            "--pids-limit 0 nginx",
            "-v a:/x -v b:/x/ nginx",
            "--stop-signal FUN nginx",
            "--security-opt seccomp=/no/such/file nginx",
            "--security-opt apparmor=mine nginx",
            "--security-opt dance nginx",
            "-h a_b nginx",
        ] {
            let args = args(flags);
            assert!(pod(&args, &Place::Private).is_err(), "{flags}");
        }
    }

    #[test]
    fn containers_are_confined_unless_somebody_says_otherwise() {
        let of = |flags: &str| container(&args(flags)).unwrap();
        let plan = of("nginx");
        assert_eq!((plan.seccomp, plan.exposure, plan.no_new_privileges), Default::default());
        let plan = of("--privileged --security-opt seccomp=unconfined --security-opt no-new-privileges nginx");
        assert!(plan.exposure.privileged && plan.no_new_privileges && plan.seccomp == SeccompPlan::Unconfined);
        let plan =
            of("--security-opt apparmor=unconfined --security-opt label=disable --security-opt unmask=ALL nginx");
        assert!(plan.exposure.unmasked && !plan.exposure.privileged && plan.seccomp == SeccompPlan::RuntimeDefault);
    }

    #[test]
    fn a_user_namespace_has_ids_of_its_own() {
        let of = |flags: &str| container(&args(flags)).map(|plan| plan.users);
        let range = |container, guest, size| IdRange { container, guest, size };
        assert_eq!(of("nginx").unwrap(), None);
        assert_eq!(of("--userns host nginx").unwrap(), None);
        assert_eq!(of("--userns auto nginx").unwrap(), Some(UsersPlan::default()));
        let maps = of("--uidmap 0:1000:10 --uidmap 10:7 --gidmap 0:5:1 nginx").unwrap().unwrap();
        assert_eq!((maps.uids, maps.gids), (vec![range(0, 1000, 10), range(10, 7, 1)], vec![range(0, 5, 1)]));
        let maps = of("--gidmap 0:5:1 nginx").unwrap().unwrap();
        assert_eq!(maps.uids, maps.gids);
        for bad in ["--userns keep-id", "--userns auto --uidmap 0:1:1", "--uidmap 0", "--uidmap 0:1:0", "--uidmap a:b"]
        {
            assert!(of(&format!("{bad} nginx")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_random_name_makes_a_host_name() {
        let args = args("nginx");
        let pod = pod(&args, &Place::Private).unwrap();
        assert!(pod.containers[0].name.contains('_') && pod.hostname.contains('-'));
        assert_eq!(pod.containers[0].limits.pids, Some(2048));
    }
}
