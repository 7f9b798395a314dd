//! `linux.resources.blockIO` and its words in cgroup v2, `io.weight` and `io.max`.
//!
//! A throttled device is known by its number on the host; which disk of the guest that is, only the pod knows.

use husk_agent_api::v1;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::SpecError;

/// Limits of one block device of the host. An absent rate is left alone; `u64::MAX` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttle {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// The device's place in these is not known yet.
    pub(crate) rates: v1::IoMax,
}

impl Throttle {
    /// That no disk of the pod is this device.
    pub(crate) fn unknown_device(&self) -> SpecError {
        let device = format!("{}:{}", self.major, self.minor);
        let why = "it is neither a block device that the pod was given nor the disk below its writable layers; no other \
                   device of the host does I/O for the pod";
        SpecError::unsupported("linux.resources.blockIO", device, why)
    }
}

type Rate = fn(&mut v1::IoMax) -> &mut Option<u64>;

pub(super) fn block_io(
    wanted: &LinuxBlockIo,
    limits: &mut v1::Resources,
    throttles: &mut Vec<Throttle>,
) -> Result<(), SpecError> {
    let field = |name: &str| format!("linux.resources.blockIO.{name}");
    if wanted.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(SpecError::unsupported(field("leafWeight"), "(set)", super::CGROUP_V1));
    }
    if wanted.weight_device().as_ref().is_some_and(|devices| !devices.is_empty()) {
        let why = "weights are set for all disks of the pod at once; use blockIO.weight";
        return Err(SpecError::unsupported(field("weightDevice"), "(set)", why));
    }
    match wanted.weight() {
        None | Some(0) => {}
        Some(weight @ 10..=1000) => {
            limits.files.insert("io.weight".into(), format!("default {}", io_weight(weight)));
        }
        Some(weight) => return Err(SpecError::invalid(field("weight"), weight.to_string(), "the range is 10 to 1000")),
    }
    let lists: [(&str, _, Rate); 4] = [
        ("throttleReadBpsDevice", wanted.throttle_read_bps_device(), |rates| &mut rates.read_bytes),
        ("throttleWriteBpsDevice", wanted.throttle_write_bps_device(), |rates| &mut rates.write_bytes),
        ("throttleReadIOPSDevice", wanted.throttle_read_iops_device(), |rates| &mut rates.read_operations),
        ("throttleWriteIOPSDevice", wanted.throttle_write_iops_device(), |rates| &mut rates.write_operations),
    ];
    for (name, devices, rate) in lists {
        for device in devices.iter().flatten() {
            add(throttles, &field(name), device, rate)?;
        }
    }
    Ok(())
}

fn add(throttles: &mut Vec<Throttle>, field: &str, device: &LinuxThrottleDevice, rate: Rate) -> Result<(), SpecError> {
    let (Ok(major), Ok(minor)) = (u32::try_from(device.major()), u32::try_from(device.minor())) else {
        let value = format!("{}:{}", device.major(), device.minor());
        return Err(SpecError::invalid(field, value, "a device's numbers are not negative"));
    };
    // cgroup v1's 0, which takes a limit away; cgroup v2 has a word for it.
    let value = if device.rate() == 0 { u64::MAX } else { device.rate() };
    *rate(&mut of_device(throttles, major, minor).rates) = Some(value);
    Ok(())
}

fn of_device(throttles: &mut Vec<Throttle>, major: u32, minor: u32) -> &mut Throttle {
    let known = throttles.iter().position(|throttle| (throttle.major, throttle.minor) == (major, minor));
    let index = known.unwrap_or(throttles.len());
    if known.is_none() {
        throttles.push(Throttle { major, minor, ..Throttle::default() });
    }
    #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
    &mut throttles[index]
}

/// cgroup v1's weight (10 to 1000) as cgroup v2's (1 to 10000); runc's `ConvertBlkIOToIOWeightValue`.
fn io_weight(weight: u16) -> u32 {
    u32::from(weight.saturating_sub(10)).saturating_mul(9999) / 990 + 1
}

/// The lines of `io.max`, such as `8:0 rbps=1048576 wiops=max`.
pub(super) fn io_max(field: &str, text: &str, throttles: &mut Vec<Throttle>) -> Result<(), SpecError> {
    for line in text.lines() {
        io_max_line(line, throttles).ok_or_else(|| {
            SpecError::invalid(field, line, "a line is MAJOR:MINOR and rbps=, wbps=, riops= or wiops=")
        })?;
    }
    Ok(())
}

fn io_max_line(line: &str, throttles: &mut Vec<Throttle>) -> Option<()> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let rates = &mut of_device(throttles, major.parse().ok()?, minor.parse().ok()?).rates;
    for word in words {
        let (key, value) = word.split_once('=')?;
        let value = if value == "max" { u64::MAX } else { value.parse().ok().filter(|rate| *rate > 0)? };
        match key {
            "rbps" => rates.read_bytes = Some(value),
            "wbps" => rates.write_bytes = Some(value),
            "riops" => rates.read_operations = Some(value),
            "wiops" => rates.write_operations = Some(value),
            _ => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_at_both_ends() {
        assert_eq!((io_weight(10), io_weight(100), io_weight(1000)), (1, 910, 10_000));
    }

    #[test]
    fn lines_of_one_device_are_one_throttle() {
        let mut throttles = Vec::new();
        io_max("f", "8:0 rbps=5 wiops=max\n8:0 wbps=7\n8:16 riops=1", &mut throttles).unwrap();
        assert_eq!(throttles.len(), 2);
        let rates = throttles[0].rates;
        assert_eq!((rates.read_bytes, rates.write_bytes, rates.write_operations), (Some(5), Some(7), Some(u64::MAX)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,100}") {
            let _ = io_max("f", &text, &mut Vec::new());
        }
    }
}
