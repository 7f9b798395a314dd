//! `cpu.pressure`, `memory.pressure` and `io.pressure` (`Documentation/accounting/psi.rst`).

use husk_agent_api::v1::{Pressure, PressureShare};

/// Two lines, `some` and `full`: `some avg10=0.12 avg60=0.00 avg300=0.00 total=4711`. `None` when there is neither, as
/// without PSI in the kernel.
pub(super) fn parse(text: &str) -> Option<Pressure> {
    let line = |name| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(share);
    let (some, full) = (line("some"), line("full"));
    (some.is_some() || full.is_some()).then_some(Pressure { some, full })
}

fn share(line: &str) -> PressureShare {
    let mut share = PressureShare::default();
    for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => share.average_10 = hundredths(value),
            "avg60" => share.average_60 = hundredths(value),
            "avg300" => share.average_300 = hundredths(value),
            "total" => share.total_us = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    share
}

/// `12.34`, of which the kernel always writes both digits.
fn hundredths(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    number(whole).saturating_mul(100).saturating_add(number(part).min(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text =
            "some avg10=12.34 avg60=0.05 avg300=100.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let pressure = parse(text).unwrap();
        let some = PressureShare { average_10: 1234, average_60: 5, average_300: 10_000, total_us: 4711 };
        assert_eq!(pressure.some, Some(some));
        assert_eq!(pressure.full.unwrap().total_us, 3);
        assert_eq!(parse(""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,200}", line in "some (avg10|total)=[0-9.]{0,30}") {
            let _ = (parse(&text), parse(&line));
        }
    }
}
