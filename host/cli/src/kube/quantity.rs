//! Kubernetes quantities: `256Mi`, `100m`, `1e3`, `0.5`.
//!
//! Grammar: k8s.io/apimachinery `pkg/api/resource/quantity.go`. A fraction smaller than the asked unit is rounded up,
//! as there.

use thiserror::Error;

/// Why a text is no usable quantity.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum QuantityError {
    #[error("\"{0}\" is not a quantity (examples: 128Mi, 1Gi, 500m, 2)")]
    Malformed(String),
    #[error("\"{0}\" is too large")]
    TooLarge(String),
    #[error("\"{0}\" must not be negative")]
    Negative(String),
}

/// A non-negative decimal number, exact: `mantissa * 2^binary * 10^decimal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity {
    mantissa: u128,
    binary: u32,
    decimal: i32,
}

/// More digits than any limit needs, and few enough that no step below overflows unseen.
const MAX_DIGITS: usize = 30;
const MAX_EXPONENT: i32 = 36;

impl Quantity {
    /// # Errors
    ///
    /// When the text does not follow the grammar, is negative, or has more digits than a limit can need.
    pub(crate) fn parse(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        let unsigned = match text.strip_prefix('-') {
            Some(rest) if !rest.starts_with('-') && rest.chars().any(|c| ('1'..='9').contains(&c)) => {
                return Err(QuantityError::Negative(text.to_owned()));
            }
            Some(rest) => rest,
            None => text.strip_prefix('+').unwrap_or(text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(malformed());
        }
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0');
        if significant.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
            return Err(QuantityError::TooLarge(text.to_owned()));
        }
        let mantissa = if significant.is_empty() { 0 } else { significant.parse::<u128>().map_err(|_| malformed())? };
        let (binary, exponent) = suffix_scale(suffix).ok_or_else(malformed)?;
        if exponent.abs() > MAX_EXPONENT {
            return Err(QuantityError::TooLarge(text.to_owned()));
        }
        let decimal = i32::try_from(fraction.len()).ok().and_then(|f| exponent.checked_sub(f)).ok_or_else(malformed)?;
        Ok(Self { mantissa, binary, decimal })
    }

    /// In whole units (bytes, for memory), rounded up.
    pub(crate) fn units(self) -> Option<u64> {
        self.scaled(0)
    }

    /// In thousandths (milli-CPUs, for cpu), rounded up.
    pub(crate) fn millis(self) -> Option<u64> {
        self.scaled(3)
    }

    fn scaled(self, power: i32) -> Option<u64> {
        let mut value = self.mantissa.checked_mul(1u128.checked_shl(self.binary)?)?;
        let exponent = self.decimal.checked_add(power)?;
        let factor = 10u128.checked_pow(exponent.unsigned_abs());
        value = if exponent >= 0 {
            if value == 0 { 0 } else { value.checked_mul(factor?)? }
        } else {
            // A divisor beyond u128 leaves less than one unit, which rounds up to one.
            factor.map_or_else(|| u128::from(value > 0), |divisor| value.div_ceil(divisor))
        };
        u64::try_from(value).ok()
    }
}

/// Power of two and power of ten that a suffix stands for.
fn suffix_scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (0, digits.parse().ok()?)
        }
    })
}

/// A memory quantity in bytes.
///
/// # Errors
///
/// As [`Quantity::parse`], and when the value does not fit 63 bits (what the kernel takes).
pub(crate) fn bytes(text: &str) -> Result<u64, QuantityError> {
    Quantity::parse(text)?
        .units()
        .filter(|b| i64::try_from(*b).is_ok())
        .ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

/// A CPU quantity in thousandths of a CPU.
///
/// # Errors
///
/// As [`Quantity::parse`], and when it is more than a million CPUs.
pub(crate) fn milli_cpus(text: &str) -> Result<u64, QuantityError> {
    Quantity::parse(text)?
        .millis()
        .filter(|m| *m <= 1_000_000_000)
        .ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_suffixes_are_powers_of_1024_or_1000() {
        assert_eq!(bytes("256Mi"), Ok(268_435_456));
        assert_eq!(bytes("128Mi"), Ok(134_217_728));
        assert_eq!(bytes("1.5Gi"), Ok(1_610_612_736));
        assert_eq!(bytes("1e3"), Ok(1000));
        assert_eq!(bytes("1E3"), Ok(1000));
        assert_eq!(bytes("1E"), Ok(1_000_000_000_000_000_000));
        assert_eq!(bytes("128974848"), Ok(128_974_848));
        assert_eq!(bytes("129M"), Ok(129_000_000));
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("+5"), Ok(5));
        assert_eq!(bytes(".5Ki"), Ok(512));
        assert_eq!(bytes("5."), Ok(5));
    }

    #[test]
    fn less_than_one_unit_rounds_up() {
        assert_eq!(bytes("1m"), Ok(1));
        assert_eq!(bytes("1.1"), Ok(2));
        assert_eq!(milli_cpus("0.0001"), Ok(1));
    }

    #[test]
    fn cpus_are_counted_in_thousandths() {
        assert_eq!(milli_cpus("100m"), Ok(100));
        assert_eq!(milli_cpus("0.5"), Ok(500));
        assert_eq!(milli_cpus("2"), Ok(2000));
        assert_eq!(milli_cpus("1e-1"), Ok(100));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", ".", "Mi", "1 Mi", "1mi", "1KB", "1.2.3", "e3", "1e", "1e+", "0x10", "١", "1Ki1", "--1"] {
            assert!(matches!(bytes(text), Err(QuantityError::Malformed(_))), "{text}");
        }
        assert!(matches!(bytes("-1"), Err(QuantityError::Negative(_))));
        assert_eq!(bytes("-0"), Ok(0));
        for text in ["16Ei", "9223372036854775808", "1e30", "1e999999", "1e99999999999999"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "[0-9.+eEkKmMgGiTuPn-]{0,40}") {
            let _ = bytes(&text);
            let _ = milli_cpus(&text);
        }

        #[test]
        fn a_plain_number_is_itself(n in 0u64..=i64::MAX as u64) {
            prop_assert_eq!(bytes(&n.to_string()), Ok(n));
        }

        #[test]
        fn mebibytes_are_a_million_and_a_bit(n in 0u64..=1_000_000) {
            prop_assert_eq!(bytes(&format!("{n}Mi")), Ok(n * 1_048_576));
        }

        #[test]
        fn thousandths_add_up(n in 0u64..=1_000_000) {
            prop_assert_eq!(milli_cpus(&format!("{n}m")), Ok(n));
            prop_assert_eq!(milli_cpus(&format!("{}.{:03}", n / 1000, n % 1000)), Ok(n));
        }
    }
}
