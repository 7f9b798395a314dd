//! seccomp profiles in files of the host.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use anyhow::{Context as _, ensure};
use oci_spec::runtime::Capabilities;

use crate::error::Advise as _;
use crate::pods::plan::{PodPlan, SeccompPlan};

/// Where Kubernetes keeps them.
pub(crate) const PROFILE_ROOT: &str = "/var/lib/kubelet/seccomp";
/// Docker's default is 13 KiB.
const LARGEST: u64 = 1 << 20;
const FORM: &str = "a profile is JSON as the OCI runtime specification, Docker or Podman have it";

/// Reads a profile and checks that it can be had.
///
/// # Errors
///
/// For a file that cannot be read or is no profile, and for what a profile asks for and cannot have.
pub(crate) fn read(path: &Path) -> anyhow::Result<SeccompPlan> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open the seccomp profile {name}")).hint(FORM)?;
    let mut text = String::new();
    let mut file = file.take(LARGEST);
    file.read_to_string(&mut text).with_context(|| format!("cannot read the seccomp profile {name}")).hint(FORM)?;
    ensure!(file.limit() > 0, "the seccomp profile {name} has more than {} MiB", LARGEST >> 20);
    husk_seccomp::from_file(&text, &Capabilities::new())
        .and_then(|profile| husk_seccomp::compile(&profile))
        .with_context(|| format!("the seccomp profile {name} cannot be used"))
        .hint(FORM)?;
    Ok(SeccompPlan::Profile(text))
}

/// Reads the profiles that a manifest names.
///
/// # Errors
///
/// As [`read`], and for names that lead out of the directory.
pub(crate) fn resolve(pod: &mut PodPlan, root: &Path) -> anyhow::Result<()> {
    for container in &mut pod.containers {
        if let SeccompPlan::Localhost(name) = &container.seccomp {
            ensure!(is_below(name), "seccompProfile.localhostProfile {name}: it must be a path below the profile root");
            container.seccomp = read(&root.join(name)).with_context(|| format!("container {}", container.name))?;
        }
    }
    Ok(())
}

fn is_below(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::plan::ContainerPlan;

    #[test]
    fn a_profile_is_read_below_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("audit")).unwrap();
        std::fs::write(root.path().join("audit/log.json"), r#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
        std::fs::write(root.path().join("bad.json"), r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).unwrap();
        let resolved = |name: &str| {
            let seccomp = SeccompPlan::Localhost(name.to_owned());
            let mut pod =
                PodPlan { containers: vec![ContainerPlan { seccomp, ..Default::default() }], ..Default::default() };
            resolve(&mut pod, root.path()).map(|()| pod.containers.remove(0).seccomp)
        };
        assert!(matches!(resolved("audit/log.json").unwrap(), SeccompPlan::Profile(text) if text.contains("LOG")));
        for (name, why) in
            [("../x", "below"), ("/etc/passwd", "below"), ("", "below"), ("none", "open"), ("bad.json", "used")]
        {
            assert!(format!("{:#}", resolved(name).unwrap_err()).contains(why), "{name}");
        }
    }
}
