//! Limits of a pod or container, as control-file writes.

use std::borrow::Cow;

use husk_agent_api::v1::{IoMax, Resources};
use rustix::io::Errno;

use super::Cgroup;
use crate::error::{Error, Result};

/// cpu.max's period when only a quota is given: the kernel's default, microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// Controllers whose files may be named.
const CONTROLLERS: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids"];
/// Most files that may be named, and the longest name and value.
const MAX_FILES: usize = 64;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;

/// A control file and what goes into it.
type Write = (Cow<'static, str>, String);

/// Checked limits, in an order that the kernel accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    writes: Vec<Write>,
    /// Memory in use must not be more than this.
    fits: Option<u64>,
}

fn bound(field: &str, value: i64) -> Result<String> {
    match value {
        -1 => Ok("max".to_owned()),
        0.. => Ok(value.to_string()),
        _ => Err(Error::invalid(format!("resources.{field}: {value} is neither a limit nor -1"))),
    }
}

impl Limits {
    /// What `resources` asks for, but for `io_max`: see [`Self::throttle`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the field.
    pub fn new(resources: &Resources) -> Result<Self> {
        let mut limits = Self::default();
        let memory = [
            ("memory.max", "memory_max", resources.memory_max),
            ("memory.high", "memory_high", resources.memory_high),
            ("memory.low", "memory_low", resources.memory_low),
            ("memory.swap.max", "memory_swap_max", resources.memory_swap_max),
            ("pids.max", "pids_max", resources.pids_max),
        ];
        for (file, field, value) in memory {
            if let Some(value) = value {
                limits.write(file, bound(field, value)?);
            }
        }
        if resources.check_memory {
            limits.fits = resources.memory_max.and_then(|bytes| u64::try_from(bytes).ok());
        }
        limits.cpu(resources)?;
        limits.cpuset("cpuset.cpus", "cpuset_cpus", resources.cpuset_cpus.as_ref())?;
        limits.cpuset("cpuset.mems", "cpuset_mems", resources.cpuset_mems.as_ref())?;
        limits.files(resources)?;
        Ok(limits)
    }

    /// Adds the limits of the block device `major:minor`.
    pub fn throttle(&mut self, (major, minor): (u32, u32), rates: &IoMax) {
        let mut line = format!("{major}:{minor}");
        let rates = [
            ("rbps", rates.read_bytes),
            ("wbps", rates.write_bytes),
            ("riops", rates.read_operations),
            ("wiops", rates.write_operations),
        ];
        for (key, rate) in rates {
            match rate {
                None => {}
                Some(u64::MAX) => line.push_str(&format!(" {key}=max")),
                Some(rate) => line.push_str(&format!(" {key}={rate}")),
            }
        }
        self.write("io.max", line);
    }

    /// Whether disks are to be shared by weight.
    #[must_use]
    pub fn weighs_io(&self) -> bool {
        self.writes.iter().any(|(file, _)| file == "io.weight")
    }

    fn write(&mut self, file: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.writes.push((file.into(), value.into()));
    }

    fn cpu(&mut self, resources: &Resources) -> Result<()> {
        if let Some(period) = resources.cpu_period_us
            && !(1_000..=1_000_000).contains(&period)
        {
            return Err(Error::invalid(format!("resources.cpu_period_us: {period} is not within 1000 to 1000000")));
        }
        if let Some(quota) = resources.cpu_quota_us
            && quota != -1
            && quota < 1_000
        {
            return Err(Error::invalid(format!("resources.cpu_quota_us: {quota} is less than 1000 and not -1")));
        }
        let quota = match (resources.cpu_quota_us, resources.cpu_period_us) {
            (None, None) => None,
            (quota, period) => {
                let quota = quota.map_or(Ok("max".to_owned()), |quota| bound("cpu_quota_us", quota))?;
                Some(format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD_US)))
            }
        };
        if let Some(quota) = quota {
            // The kernel compares burst and quota at every write: an old burst must not stand in a new quota's way.
            if resources.cpu_burst_us.is_some() {
                self.write("cpu.max.burst", "0");
            }
            self.write("cpu.max", quota);
        }
        if let Some(burst) = resources.cpu_burst_us {
            self.write("cpu.max.burst", burst.to_string());
        }
        // An idle cgroup has no weight.
        if resources.cpu_idle == Some(false) {
            self.write("cpu.idle", "0");
        }
        if let Some(weight) = resources.cpu_weight {
            if !(1..=10_000).contains(&weight) {
                return Err(Error::invalid(format!("resources.cpu_weight: {weight} is not within 1 to 10000")));
            }
            self.write("cpu.weight", weight.to_string());
        }
        if resources.cpu_idle == Some(true) {
            self.write("cpu.idle", "1");
        }
        Ok(())
    }

    fn cpuset(&mut self, file: &'static str, field: &str, list: Option<&String>) -> Result<()> {
        let Some(list) = list else { return Ok(()) };
        if list.len() > MAX_VALUE || !list.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-')) {
            return Err(Error::invalid(format!("resources.{field}: {list:?} is not a list of numbers")));
        }
        // An empty list means "those of the parent".
        self.write(file, if list.is_empty() { "\n".to_owned() } else { list.clone() });
        Ok(())
    }

    fn files(&mut self, resources: &Resources) -> Result<()> {
        if resources.files.len() > MAX_FILES {
            return Err(Error::invalid(format!("resources.files: more than {MAX_FILES}")));
        }
        let mut files: Vec<_> = resources.files.iter().collect();
        files.sort_unstable();
        for (name, value) in files {
            let controller = name.split_once('.').map(|(controller, _)| controller).unwrap_or_default();
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            if !CONTROLLERS.contains(&controller) || !plain || name.contains("..") || name.len() > MAX_NAME {
                return Err(Error::invalid(format!("resources.files: {name:?} is not a file of a controller")));
            }
            if value.len() > MAX_VALUE || value.contains('\0') {
                return Err(Error::invalid(format!("resources.files: {name} has a value that no control file takes")));
            }
            self.write(name.clone(), value.clone());
        }
        Ok(())
    }

    /// Sets the limits. One that is already written stays when a later one is refused.
    pub fn apply(&self, cgroup: &Cgroup) -> Result<()> {
        if let Some(most) = self.fits {
            let used: u64 = cgroup.read("memory.current")?.trim().parse().unwrap_or(0);
            if used > most {
                return Err(Error::precondition(format!(
                    "resources.memory_max: {used} bytes are in use, more than the new limit of {most}"
                )));
            }
        }
        for (file, value) in &self.writes {
            match file.as_ref() {
                // Without swap in the kernel there is no such file, and nothing to limit.
                "memory.swap.max" if !cgroup.path().join("memory.swap.max").exists() => {}
                file if file.starts_with("hugetlb.") && value == "0" && !cgroup.path().join(file).exists() => {}
                "cpuset.cpus" | "cpuset.mems" => set_places(cgroup, file, value)?,
                _ => write(cgroup, file, value)?,
            }
        }
        Ok(())
    }
}

/// Writes a file, and takes what the kernel says of the value for what it is: the request's mistake.
fn write(cgroup: &Cgroup, file: &str, value: &str) -> Result<()> {
    match cgroup.write(file, value) {
        Err(Error::System { call: "open", errno: Errno::NOENT, .. }) if cgroup.path().exists() => {
            Err(Error::invalid(format!("resources: the guest's kernel has no control file {file} here")))
        }
        Err(Error::System {
            errno: errno @ (Errno::INVAL | Errno::RANGE | Errno::OVERFLOW | Errno::NODEV), ..
        }) => {
            Err(Error::invalid(format!("resources: the guest's kernel refuses {:?} in {file}: {errno}", value.trim())))
        }
        other => other,
    }
}

/// Restricts a cgroup to CPUs or memory nodes. The kernel takes any number and then leaves out what the guest does not
/// have, or falls back to all; either would be a limit dropped in silence.
fn set_places(cgroup: &Cgroup, file: &str, list: &str) -> Result<()> {
    let before = cgroup.read(file)?;
    write(cgroup, file, list)?;
    let (set, effective) = (cgroup.read(file)?, cgroup.read(&format!("{file}.effective"))?);
    if set.trim().is_empty() || set == effective {
        return Ok(());
    }
    cgroup.write(file, if before.trim().is_empty() { "\n" } else { before.trim() })?;
    let all = cgroup.read(&format!("{file}.effective"))?;
    Err(Error::invalid(format!(
        "resources: {file} = {list} names what the pod's VM does not have; it can use {}",
        all.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(resources: &Resources) -> Result<Vec<(String, String)>> {
        let writes = Limits::new(resources)?.writes;
        Ok(writes.into_iter().map(|(file, value)| (file.into_owned(), value)).collect())
    }

    fn of(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn absent_fields_are_left_alone() {
        assert!(writes(&Resources::default()).unwrap().is_empty());
    }

    #[test]
    fn minus_one_is_max() {
        let resources = Resources { memory_max: Some(-1), pids_max: Some(64), ..Resources::default() };
        assert_eq!(writes(&resources).unwrap(), of(&[("memory.max", "max"), ("pids.max", "64")]));
    }

    #[test]
    fn cpu_quota_and_period_are_one_write() {
        let mut resources = Resources { cpu_quota_us: Some(50_000), ..Resources::default() };
        assert_eq!(writes(&resources).unwrap(), of(&[("cpu.max", "50000 100000")]));
        resources.cpu_period_us = Some(20_000);
        resources.cpu_quota_us = Some(-1);
        assert_eq!(writes(&resources).unwrap(), of(&[("cpu.max", "max 20000")]));
        resources.cpu_quota_us = None;
        assert_eq!(writes(&resources).unwrap(), of(&[("cpu.max", "max 20000")]));
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let bad = [
            (Resources { memory_max: Some(-2), ..Resources::default() }, "memory_max"),
            (Resources { cpu_weight: Some(0), ..Resources::default() }, "cpu_weight"),
            (Resources { cpu_quota_us: Some(5), ..Resources::default() }, "cpu_quota_us"),
            (Resources { cpu_period_us: Some(5), ..Resources::default() }, "cpu_period_us"),
            (Resources { cpuset_cpus: Some("0-1\n2".to_owned()), ..Resources::default() }, "cpuset_cpus"),
        ];
        for (resources, field) in bad {
            let error = writes(&resources).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn a_burst_never_stands_in_the_way_of_its_quota_and_idle_comes_last() {
        let resources = Resources {
            cpu_quota_us: Some(50_000),
            cpu_burst_us: Some(20_000),
            cpu_weight: Some(5),
            cpu_idle: Some(true),
            ..Resources::default()
        };
        let expected = [
            ("cpu.max.burst", "0"),
            ("cpu.max", "50000 100000"),
            ("cpu.max.burst", "20000"),
            ("cpu.weight", "5"),
            ("cpu.idle", "1"),
        ];
        assert_eq!(writes(&resources).unwrap(), of(&expected));
    }

    #[test]
    fn a_throttle_is_one_line() {
        let mut limits = Limits::default();
        limits.throttle((254, 0), &IoMax { read_bytes: Some(5), write_operations: Some(u64::MAX), ..IoMax::default() });
        assert_eq!(limits.writes, [("io.max".into(), "254:0 rbps=5 wiops=max".to_owned())]);
    }

    #[test]
    fn only_files_of_controllers_can_be_named() {
        for bad in ["cgroup.procs", "cgroup.kill", "memory/../cgroup.kill", "memory..x", "rdma.max", "memory", ""] {
            let files = [(bad.to_owned(), "1".to_owned())].into();
            assert!(writes(&Resources { files, ..Resources::default() }).is_err(), "{bad}");
        }
        let files = [("memory.oom.group", "1"), ("hugetlb.2MB.max", "0")];
        let files = files.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let expected = of(&[("hugetlb.2MB.max", "0"), ("memory.oom.group", "1")]);
        assert_eq!(writes(&Resources { files, ..Resources::default() }).unwrap(), expected);
    }

    #[test]
    fn a_list_beyond_the_machine_is_refused_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("cpuset.cpus", "\n"), ("cpuset.cpus.effective", "0-1\n")] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let resources = Resources { cpuset_cpus: Some("4-5".to_owned()), ..Resources::default() };
        let error = Limits::new(&resources).unwrap().apply(&Cgroup::at(dir.path())).unwrap_err();
        assert!(error.to_string().contains("it can use 0-1"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("cpuset.cpus")).unwrap(), "\n");
    }

    #[test]
    fn more_in_use_than_the_new_limit_is_refused_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.max", "memory.current"] {
            std::fs::write(dir.path().join(file), "4096").unwrap();
        }
        let resources = Resources { memory_max: Some(1024), check_memory: true, ..Resources::default() };
        let error = Limits::new(&resources).unwrap().apply(&Cgroup::at(dir.path())).unwrap_err();
        assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
    }

    #[test]
    fn limits_are_written_to_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.max", "cpu.weight"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let resources = Resources {
            memory_max: Some(1 << 20),
            cpu_weight: Some(39),
            memory_swap_max: Some(0),
            ..Resources::default()
        };
        Limits::new(&resources).unwrap().apply(&Cgroup::at(dir.path())).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("memory.max")).unwrap(), "1048576");
        assert_eq!(std::fs::read_to_string(dir.path().join("cpu.weight")).unwrap(), "39");
    }
}
