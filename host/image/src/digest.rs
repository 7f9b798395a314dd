//! SHA-256 digests, the only algorithm images use in practice and the only one accepted.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// `sha256:` and 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Text that is no digest this crate accepts.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is not \"sha256:\" and 64 lowercase hexadecimal digits, the only kind of digest supported")]
pub struct DigestError(String);

impl Digest {
    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The digest of 64 hex digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let lowercase = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        (lowercase && hex::decode_to_slice(digits, &mut bytes).is_ok()).then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let shown: String = text.chars().take(200).collect();
        text.strip_prefix("sha256:").and_then(Self::from_hex).ok_or(DigestError(shown))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Counts and hashes what is read or written through it, and stops reading at a limit.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
    limit: u64,
    exceeded: bool,
}

impl<R> Hashing<R> {
    /// The digest of what came so far, and its length.
    pub(crate) fn sum(self) -> (Digest, u64) {
        (Digest(self.hash.finalize().into()), self.count)
    }

    /// More than `limit` bytes are an error.
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, hash: Sha256::new(), count: 0, limit, exceeded: false }
    }

    /// Bytes so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether reading stopped at the limit.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }
}

impl<R: Read> Hashing<R> {
    /// Reads to the end; gives the digest of everything.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.sum())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count += got as u64;
        if self.count > self.limit {
            self.exceeded = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than allowed"));
        }
        self.hash.update(buffer.get(..got).unwrap_or_default());
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lowercase_sha256_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in ["", "sha256:", "sha512:00", &good[1..], &good.to_uppercase(), &format!("{good}0")] {
            assert!(bad.parse::<Digest>().is_err());
        }
    }

    #[test]
    fn reading_beyond_the_limit_is_an_error() {
        let mut reader = Hashing::new(&b"12345"[..], 4);
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
        assert!(reader.exceeded());
        let (digest, count) = Hashing::new(&b"12345"[..], 5).finish().unwrap();
        assert_eq!((digest, count), (Digest::of(b"12345"), 5));
    }
}
