//! Text from the guest, or from a client, made fit for logs and error messages.
//!
//! A hostile guest chooses every byte of its console and of its error messages: escape sequences that rewrite a
//! terminal, newlines that forge log lines, megabytes that fill a disk. Nothing of it is printed before it went
//! through here.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest message of the guest that is kept, in characters.
const MAX_MESSAGE: usize = 512;
/// Longest console line that is kept, in characters.
const MAX_LINE: usize = 240;
/// Most console lines that go into an error.
const MAX_LINES: usize = 20;
/// How much of a console's end is looked at, in bytes.
const TAIL_BYTES: u64 = 32 * 1024;

/// At most `limit` characters of `text`, control characters escaped and the cut shown by `...`.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut result = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            result.push_str("...");
            break;
        }
        if is_dangerous(character) {
            result.extend(character.escape_default());
        } else {
            result.push(character);
        }
    }
    result
}

/// Control characters, and the invisible ones that reorder or hide text in a terminal.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A message of the guest, bounded and escaped.
pub(crate) fn message(text: &str) -> String {
    printable(text.trim(), MAX_MESSAGE)
}

/// The last lines of a log file that the guest or the VMM wrote, bounded and escaped; empty when it cannot be read.
pub(crate) fn tail(path: &Path) -> Vec<String> {
    read_end(path).map(|bytes| last_lines(&bytes)).unwrap_or_default()
}

fn read_end(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .rev()
        .take(MAX_LINES)
        .map(|line| printable(line, MAX_LINE))
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_and_newlines_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\nc", 100), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable("\u{202e}txt", 100), "\\u{202e}txt");
    }

    #[test]
    fn a_long_message_is_cut() {
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(printable("abc", 3), "abc");
    }

    #[test]
    fn the_last_twenty_lines_remain() {
        let text: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
        let lines = last_lines(text.as_bytes());
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines.first().unwrap(), "line 80");
        assert_eq!(lines.last().unwrap(), "line 99");
    }

    #[test]
    fn a_missing_log_has_no_lines() {
        assert!(tail(Path::new("/nonexistent/console.log")).is_empty());
    }

    #[test]
    fn only_the_end_of_a_huge_log_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x".repeat(200_000) + "\nend\n").unwrap();
        let lines = tail(file.path());
        assert_eq!(lines.last().unwrap(), "end");
        assert!(lines.iter().all(|line| line.chars().count() <= MAX_LINE + 3));
    }

    proptest! {
        #[test]
        fn whatever_the_guest_prints_stays_bounded_and_harmless(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let lines = last_lines(&bytes);
            prop_assert!(lines.len() <= MAX_LINES);
            for line in lines {
                prop_assert!(!line.chars().any(is_dangerous));
                // The longest escape of one character is `\u{10ffff}`.
                prop_assert!(line.len() <= MAX_LINE * 10 + 3);
            }
        }
    }
}
