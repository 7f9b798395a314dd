//! Random ids and names.

use std::fmt::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};

/// A pod's id has 32 hexadecimal digits: it is part of unix socket paths, which may have at most 107 bytes.
pub(crate) fn pod() -> String {
    hex::<16>()
}

/// A container's id has 64 hexadecimal digits, as everywhere.
pub(crate) fn container() -> String {
    hex::<32>()
}

/// The id of a process started by `husk exec`.
pub(crate) fn exec() -> String {
    hex::<16>()
}

/// Tells temporary names of one second apart.
pub(crate) fn suffix() -> String {
    hex::<5>()
}

/// A random UUID (RFC 9562, version 4), as Kubernetes gives each pod.
pub(crate) fn uid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Lists of which a name is made: common words, none that offends.
const ADJECTIVES: [&str; 64] = [
    "able", "amber", "ample", "apt", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery",
    "clear", "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "easy", "fair", "fleet", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "proud",
    "quick", "quiet", "rapid", "ready", "sharp", "silver", "sleek", "snug", "steady", "sunny", "swift", "tidy", "warm",
    "witty",
];
const NOUNS: [&str; 64] = [
    "acorn", "almond", "apple", "barley", "basil", "bean", "beech", "berry", "birch", "bramble", "cedar", "cherry",
    "chestnut", "clover", "cocoa", "corn", "cotton", "daisy", "elder", "elm", "fern", "fig", "flax", "garlic",
    "ginger", "grape", "hazel", "heather", "hickory", "holly", "hop", "iris", "ivy", "juniper", "larch", "laurel",
    "lemon", "lentil", "lily", "lime", "linden", "maize", "maple", "millet", "mint", "moss", "nutmeg", "oak", "oat",
    "olive", "pea", "peach", "pear", "pecan", "pepper", "pine", "plum", "poppy", "rice", "rowan", "rye", "sage",
    "walnut", "willow",
];

/// `keen_walnut`, in podman's manner.
pub(crate) fn name() -> String {
    let [a, b] = random::<2>();
    let pick = |list: &[&'static str; 64], byte: u8| list.get(usize::from(byte % 64)).copied().unwrap_or_default();
    format!("{}_{}", pick(&ADJECTIVES, a), pick(&NOUNS, b))
}

fn hex<const N: usize>() -> String {
    random::<N>().iter().fold(String::with_capacity(N * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    // Requests of at most 256 bytes are neither cut short nor interrupted once the pool is ready (getrandom(2)).
    while getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(N) {}
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        assert_eq!(pod().len(), 32);
        assert_eq!(container().len(), 64);
        assert!(container().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(container(), container());
    }

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        let uid = uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uid.as_bytes()[19]));
    }

    #[test]
    fn no_word_stands_twice_in_a_list() {
        for list in [ADJECTIVES, NOUNS] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 64);
        }
    }
}
