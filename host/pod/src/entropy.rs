//! Random bytes of the host's kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills all of `bytes`.
pub(crate) fn fill(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()))?;
        rest = rest.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_bytes_are_filled() {
        let mut bytes = [0; 64];
        super::fill(&mut bytes).unwrap();
        assert!(bytes.chunks(16).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
    }
}
