//! How many CPUs the guest uses. The VM has as many as it may ever use; which are online is the kernel's matter
//! (`Documentation/core-api/cpu_hotplug.rst`).

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// Where the kernel shows its CPUs.
pub const CPUS: &str = "/sys/devices/system/cpu";

/// Brings CPUs online, or takes them offline, until the first `count` are online.
///
/// # Errors
///
/// `InvalidArgument` unless `count` is 1 to the number of CPUs that there are. When the kernel refuses one, those before
/// it have changed already.
pub fn set_online(directory: &Path, count: u32) -> Result<()> {
    let cpus = present(directory)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let Some((stay, go)) = cpus.split_at_checked(count).filter(|(stay, _)| !stay.is_empty()) else {
        return Err(Error::invalid(format!("count: {count} CPUs cannot be online; the VM has {}", cpus.len())));
    };
    stay.iter().try_for_each(|cpu| switch(cpu, true))?;
    go.iter().rev().try_for_each(|cpu| switch(cpu, false))
}

/// Directories of the CPUs, in the order of their numbers.
fn present(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut cpus = Vec::new();
    for entry in std::fs::read_dir(directory).on("open", directory.display())?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu")).and_then(|n| n.parse::<u32>().ok());
        cpus.extend(number.map(|number| (number, entry.path())));
    }
    cpus.sort_unstable();
    Ok(cpus.into_iter().map(|(_, path)| path).collect())
}

/// The boot CPU has no such file: it is always online.
fn switch(cpu: &Path, online: bool) -> Result<()> {
    let file = cpu.join("online");
    let wanted = if online { "1" } else { "0" };
    match std::fs::read_to_string(&file) {
        Ok(state) if state.trim() == wanted => Ok(()),
        Ok(_) => std::fs::write(&file, wanted).on("write", format_args!("{} {wanted}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && online => Ok(()),
        Err(error) => Err(error).on("read", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU 0 and these others.
    fn machine(others: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cpu0")).unwrap();
        for (cpu, state) in others.iter().chain([&("cpufreq", "0"), &("cpuidle", "0")]) {
            std::fs::create_dir(dir.path().join(cpu)).unwrap();
            std::fs::write(dir.path().join(cpu).join("online"), state).unwrap();
        }
        dir
    }

    fn states(dir: &tempfile::TempDir, cpus: &[&str]) -> String {
        let state = |cpu: &&str| std::fs::read_to_string(dir.path().join(cpu).join("online")).unwrap();
        cpus.iter().map(|cpu| state(cpu).trim().to_owned()).collect()
    }

    #[test]
    fn the_first_cpus_are_online_and_no_others() {
        let cpus = ["cpu1", "cpu2", "cpu10"];
        let dir = machine(&[("cpu10", "0\n"), ("cpu1", "0\n"), ("cpu2", "1\n")]);
        set_online(dir.path(), 3).unwrap();
        assert_eq!(states(&dir, &cpus), "110");
        set_online(dir.path(), 1).unwrap();
        assert_eq!(states(&dir, &cpus), "000");
        set_online(dir.path(), 4).unwrap();
        assert_eq!((states(&dir, &cpus).as_str(), states(&dir, &["cpufreq"]).as_str()), ("111", "0"));
        assert!(!dir.path().join("cpu0/online").exists());
    }

    #[test]
    fn a_count_that_the_machine_does_not_have_changes_nothing() {
        let dir = machine(&[("cpu1", "0\n")]);
        for bad in [0, 3, u32::MAX] {
            let error = set_online(dir.path(), bad).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(why) if why.ends_with("the VM has 2")), "{error}");
        }
        assert_eq!(states(&dir, &["cpu1"]), "0");
    }
}
