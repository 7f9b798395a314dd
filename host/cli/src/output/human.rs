//! Times and sizes as people say them, in podman's words.

use jiff::Timestamp;

/// `5 minutes`, `About an hour`: go-units' HumanDuration, which docker and podman print.
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (minutes + 30) / 60;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 46 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

pub(crate) fn since(time: Timestamp) -> String {
    duration(Timestamp::now().as_second().saturating_sub(time.as_second()))
}

pub(crate) fn ago(time: Timestamp) -> String {
    format!("{} ago", since(time))
}

/// `part` of `whole` in hundredths of a per cent: `12.34`.
pub(crate) fn per_cent(part: u64, whole: u64) -> String {
    let scaled = u128::from(part).saturating_mul(10_000).checked_div(u128::from(whole)).unwrap_or(0);
    format!("{}.{:02}", scaled / 100, scaled % 100)
}

/// Time spent, as ps prints it: `02:05`, `01:00:00`, `2-01:00:00`.
pub(crate) fn clock(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Decimal units as podman prints images: `4.26 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    while value >= 1000.0
        && let Some(next) = unit.next()
    {
        value /= 1000.0;
        name = next;
    }
    match value {
        _ if name == "B" => format!("{bytes} B"),
        ..10.0 => format!("{value:.2} {name}"),
        ..100.0 => format!("{value:.1} {name}"),
        _ => format!("{value:.0} {name}"),
    }
}

/// The first twelve digits of an id, with or without `sha256:`.
pub(crate) fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// At most `width` characters, the last ones as dots when there are more.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_podman_says_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (4_260_000, "4.26 MB"), (42_600_000, "42.6 MB"), (426_000_000_000, "426 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn shares_and_times_are_said_as_ps_says_them() {
        assert_eq!(
            (per_cent(1, 3).as_str(), per_cent(5, 2).as_str(), per_cent(1, 0).as_str()),
            ("33.33", "250.00", "0.00")
        );
        assert_eq!(per_cent(u64::MAX, 1), "1844674407370955161500.00");
        assert_eq!(
            (clock(125).as_str(), clock(3600).as_str(), clock(176_400).as_str()),
            ("02:05", "01:00:00", "2-01:00:00")
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shorten("sleep 3650d", 20), "sleep 3650d");
        assert_eq!(shorten("abcdefghij", 8), "abcde...");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
