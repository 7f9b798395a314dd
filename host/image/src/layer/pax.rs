//! PAX extended headers: POSIX.1-2017, *pax*, "pax Extended Header".
//!
//! Records are cut by their stated length, not at newlines: the value of `security.capability` is
//! binary and may hold one. (The `tar` crate's own reader splits at newlines and would lose it.)

use base64::Engine as _;

use super::sparse::PaxSparse;
use super::tar::TarProblem;
use crate::tree::Xattrs;

/// What an extended header says about the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: PaxSparse,
}

impl Pax {
    /// Parses the payload of an `x` header.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, TarProblem> {
        let mut pax = Self::default();
        let mut rest = payload;
        while !rest.is_empty() {
            let (key, value, tail) = record(rest)?;
            rest = tail;
            pax.take(key, value)?;
        }
        Ok(pax)
    }

    /// Whether a global header (`g`) may be ignored, as every container runtime does: it holds
    /// nothing that changes an entry. `git archive` writes such a one, with a comment.
    pub(super) fn is_harmless(&self) -> bool {
        self.path.is_none()
            && self.link.is_none()
            && self.size.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.mtime.is_none()
            && self.xattrs.is_empty()
            && self.sparse == PaxSparse::default()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value).ok_or(TarProblem::Pax("its mtime is not a number"))?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.into(), value.into());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.take_libarchive(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// libarchive writes the name URL-encoded and the value in base64, beside SCHILY's plain form,
    /// which wins.
    fn take_libarchive(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        let name = percent_decode(name).ok_or(TarProblem::Pax("an attribute's name is not URL-encoded"))?;
        let engine = base64::engine::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
        );
        let value = engine.decode(value).map_err(|_| TarProblem::Pax("an attribute's value is not base64"))?;
        self.xattrs.entry(name.into_boxed_slice()).or_insert_with(|| value.into_boxed_slice());
        Ok(())
    }
}

/// Key, value, and what follows the record.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The first record, `"%d %s=%s\n"` with its own length in front.
fn record(bytes: &[u8]) -> Result<Record<'_>, TarProblem> {
    const BAD: TarProblem = TarProblem::Pax("a record's length does not fit");
    let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or(BAD)?;
    let (digits, _) = bytes.split_at_checked(space).ok_or(BAD)?;
    let len = usize::try_from(number(digits)?).map_err(|_| BAD)?;
    let (record, rest) = bytes.split_at_checked(len).ok_or(BAD)?;
    let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or(BAD)?;
    let equals = body.iter().position(|byte| *byte == b'=').ok_or(TarProblem::Pax("a record has no \"=\""))?;
    let (key, value) = body.split_at_checked(equals).ok_or(BAD)?;
    Ok((key, value.get(1..).unwrap_or_default(), rest))
}

/// A decimal number without sign or space.
pub(super) fn number(digits: &[u8]) -> Result<u64, TarProblem> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(TarProblem::Pax("a number is not decimal"));
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(TarProblem::Pax("a number is too large"))
}

/// Seconds with an optional fraction, possibly negative, rounded down to nanoseconds.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((seconds.checked_neg()?, 0)),
        (true, _) => Some((seconds.checked_neg()?.checked_sub(1)?, 1_000_000_000 - nanos)),
    }
}

fn percent_decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            decoded.extend(hex::decode(digits).ok()?);
            rest = tail;
        } else {
            decoded.push(*byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let len = (1..).map(|digits| body + digits).find(|len| len.to_string().len() + body == *len).unwrap();
        [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    #[test]
    fn a_binary_value_may_hold_newlines_and_equals_signs() {
        let value = b"\x01\n=\0\x02";
        let payload = [line(b"SCHILY.xattr.security.capability", value), line(b"uid", b"4000000000")].concat();
        let pax = Pax::parse(&payload).unwrap();
        assert_eq!(pax.xattrs.get(&b"security.capability"[..]).unwrap().as_ref(), value);
        assert_eq!(pax.uid, Some(4_000_000_000));
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        let pax = Pax::parse(&line(b"LIBARCHIVE.xattr.user.a%3Db", b"aGk")).unwrap();
        assert_eq!(pax.xattrs.get(&b"user.a=b"[..]).unwrap().as_ref(), b"hi");
    }

    #[test]
    fn times_are_rounded_down_to_nanoseconds() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"12.1234567899"), Some((12, 123_456_789)));
        for bad in [&b""[..], b"x", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn records_whose_length_lies_are_refused() {
        for bad in [&b"5 a=b\n"[..], b"99 a=b\n", b"6 a=b", b"x a=b\n", b"0 ", b"6 abc\n"] {
            assert!(Pax::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(Pax::parse(b"6 a=b\n").is_ok());
    }
}
