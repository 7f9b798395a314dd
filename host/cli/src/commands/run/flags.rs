//! The little languages of `husk run`'s flags, as podman has them.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::pods::plan::Rlimit;

/// Most processes and threads of a container unless it is told otherwise, as in podman.
pub(crate) const PIDS_LIMIT: i64 = 2048;
/// Seconds between stop signal and SIGKILL unless it is told otherwise.
pub(crate) const STOP_SECONDS: u64 = 10;
/// For messages about names that [`is_name`] refuses.
pub(crate) const NAME_RULE: &str = "use at most 63 letters, digits, _ . and -, beginning with a letter or digit";

/// A cgroup of the host that holds pods' own.
pub(crate) fn cgroup_parent(text: &str) -> Result<String, String> {
    let climbs = text.split('/').any(|part| part == "..");
    if text.trim_matches('/').is_empty() || climbs || text.contains(':') {
        return Err("it is the path of a cgroup, such as /machines, or a slice of systemd such as machine.slice".into());
    }
    Ok(text.to_owned())
}

/// `128m`, `1g`, `64k`, `512b`, `1048576`: powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("\"{unit}\" is no unit: use b, k, m or g, as in 128m")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a size such as 128m or 1g".to_owned())?;
    let bytes = number.checked_mul(1 << shift).filter(|b| i64::try_from(*b).is_ok());
    bytes.filter(|b| *b > 0).ok_or_else(|| "must be more than 0 and less than 8388608t".to_owned())
}

/// `0.5`, `2`: thousandths of a CPU.
pub(crate) fn cpus(text: &str) -> Result<u64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err("expected a number of CPUs such as 0.5 or 2".to_owned());
    }
    let milli: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| "too many CPUs".to_owned())? };
    let milli: u64 = milli.parse().map_err(|_| "expected a number of CPUs".to_owned())?;
    let value = whole.checked_mul(1000).and_then(|w| w.checked_add(milli)).filter(|v| *v <= 1_000_000);
    value.filter(|v| *v > 0).ok_or_else(|| "must be at least 0.001 and at most 1000".to_owned())
}

/// `NAME=VALUE`, or `NAME` for the value that it has here; those of files first.
pub(crate) fn env<P: AsRef<Path>>(flags: &[String], files: &[P]) -> anyhow::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for file in files {
        let file = file.as_ref();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            pairs.extend(variable(line)?);
        }
    }
    for flag in flags {
        pairs.extend(variable(flag)?);
    }
    Ok(pairs)
}

/// A name alone that is not set here sets nothing, as with podman.
fn variable(text: &str) -> anyhow::Result<Option<(String, String)>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    ensure!(!name.is_empty() && !name.contains('\0'), "\"{text}\" is no environment variable: use NAME=VALUE");
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// `key=value` pairs.
pub(crate) fn labels(flags: &[String]) -> std::collections::BTreeMap<String, String> {
    let pair = |flag: &String| match flag.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (flag.clone(), String::new()),
    };
    flags.iter().map(pair).collect()
}

/// `nofile=1024:2048`, `core=-1`.
pub(crate) fn ulimit(text: &str) -> anyhow::Result<Rlimit> {
    let bad = || format!("--ulimit {text}: expected NAME=SOFT[:HARD], as in nofile=1024:2048");
    let (name, values) = text.split_once('=').with_context(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |text: &str| match text {
        // RLIM_INFINITY
        "-1" | "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let (soft, hard) = value(soft).zip(value(hard)).with_context(bad)?;
    ensure!(soft <= hard, "--ulimit {text}: the soft limit is above the hard one");
    Ok(Rlimit { name: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard })
}

/// `/bin/sh`, or a JSON list `["/bin/sh", "-c"]`. An empty one removes the image's.
pub(crate) fn entrypoint(text: &str) -> anyhow::Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).with_context(|| format!("--entrypoint {text} is no list of texts"));
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}

/// Names of containers and pods, by podman's rule.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, value) in [("128m", 128 << 20), ("1g", 1 << 30), ("64K", 64 << 10), ("512b", 512), ("9", 9)] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "m", "0", "-1", "1x", "1.5g", "9999999999t"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_have_fractions() {
        for (text, value) in [("0.5", 500), ("2", 2000), (".25", 250), ("1.0005", 1000)] {
            assert_eq!(cpus(text), Ok(value), "{text}");
        }
        for text in ["", ".", "0", "-1", "1e3", "1001", "x"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_are_set_or_taken_from_here() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "# comment\nA=1\n\n  B=x y\n").unwrap();
        let flags = ["C=".to_owned(), "D=a=b".to_owned(), "PATH".to_owned(), "HUSK_NOT_SET".to_owned()];
        let pairs = env(&flags, &[file]).unwrap();
        let text: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(text, ["A=1", "B=x y", "C=", "D=a=b", path.as_str()]);
        assert!(env::<&Path>(&["=x".to_owned()], &[]).is_err());
    }

    #[test]
    fn limits_and_entrypoints() {
        assert_eq!(ulimit("nofile=1:2").unwrap(), Rlimit { name: "RLIMIT_NOFILE".into(), soft: 1, hard: 2 });
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        assert!(ulimit("nofile").is_err() && ulimit("nofile=3:2").is_err());
        assert_eq!(entrypoint("/bin/sh").unwrap(), ["/bin/sh"]);
        assert_eq!(entrypoint(r#"["a", "b c"]"#).unwrap(), ["a", "b c"]);
        assert!(entrypoint("").unwrap().is_empty() && entrypoint("[1]").is_err());
    }
}
