//! One line of a CRI log: `2026-11-20T12:00:00.000000001Z stdout F text`.
//!
//! The tag is F for a full line or P for a part that the next line of the same stream goes on with
//! (k8s.io/cri-client `pkg/logs`).

use jiff::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) partial: bool,
    pub(crate) content: &'a [u8],
}

/// Parses a line without its newline; `None` when it does not follow the format.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let partial = match fields.next()?.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, content: fields.next().unwrap_or_default() })
}

/// What a container wrote between two newlines of one stream, or what it had written when its log ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of its first part.
    pub(crate) time: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) content: Vec<u8>,
    /// Whether a newline ended it.
    pub(crate) whole: bool,
}

/// Longest entry that is put together, bytes; a longer one is passed on in pieces.
const LONGEST: usize = 1 << 20;

/// Puts parts together again, each stream's for itself.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    stdout: Option<Entry>,
    stderr: Option<Entry>,
}

impl Joiner {
    /// Takes a line; answers an entry when that completes one.
    pub(crate) fn push(&mut self, line: &Line<'_>) -> Option<Entry> {
        let open = match line.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut entry = open.take().unwrap_or_else(|| Entry {
            time: line.time,
            stream: line.stream,
            content: Vec::new(),
            whole: false,
        });
        entry.content.extend_from_slice(line.content);
        if !line.partial {
            entry.whole = true;
        } else if entry.content.len() < LONGEST {
            *open = Some(entry);
            return None;
        }
        Some(entry)
    }

    /// What has no end yet: at the end of a log that ends without a newline.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = Entry> {
        [self.stdout.take(), self.stderr.take()].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: &str = "2026-11-20T12:00:00.000000001Z";

    fn line(rest: &str) -> Vec<u8> {
        format!("{AT} {rest}").into_bytes()
    }

    #[test]
    fn a_line_has_time_stream_tag_and_content() {
        let bytes = line("stderr F two  spaces ");
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.stream, parsed.partial, parsed.content), (Stream::Stderr, false, &b"two  spaces "[..]));
        assert_eq!(parsed.time.to_string(), AT);
        assert_eq!(parse(&line("stdout F ")).unwrap().content, b"");
        assert_eq!(parse(&line("stdout F")).unwrap().content, b"");
        assert!(parse(&line("stdout P:x y")).unwrap().partial);
    }

    #[test]
    fn what_is_no_line_is_none() {
        for bad in ["", "stdout", "stdin F x", "stdout X x"] {
            assert!(parse(&line(bad)).is_none(), "{bad}");
        }
        assert!(parse(b"yesterday stdout F x").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn parts_of_each_stream_are_joined() {
        let mut joiner = Joiner::default();
        let lines = ["stdout P a", "stderr P x", "stdout P b", "stderr F y", "stdout F c", "stdout P open"];
        let entries: Vec<_> = lines.iter().filter_map(|l| joiner.push(&parse(&line(l)).unwrap())).collect();
        let texts: Vec<_> = entries.iter().map(|e| (e.stream, e.content.as_slice())).collect();
        assert_eq!(texts, [(Stream::Stderr, &b"xy"[..]), (Stream::Stdout, &b"abc"[..])]);
        let rest: Vec<_> = joiner.rest().collect();
        assert_eq!((rest.len(), rest[0].whole, rest[0].content.as_slice()), (1, false, &b"open"[..]));
        assert_eq!(joiner.rest().count(), 0);
    }

    #[test]
    fn an_endless_line_is_passed_on_in_pieces() {
        let mut joiner = Joiner::default();
        let bytes = line(&format!("stdout P {}", "x".repeat(16 << 10)));
        let parsed = parse(&bytes).unwrap();
        let pieces = (0..200).filter_map(|_| joiner.push(&parsed)).count();
        assert_eq!(pieces, 3);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn content_survives_being_cut_into_parts(content in "[a-z ]{0,60}", size in 1usize..9) {
            let chunks: Vec<&[u8]> = content.as_bytes().chunks(size).collect();
            let mut joiner = Joiner::default();
            let mut joined = None;
            for (index, chunk) in chunks.iter().enumerate() {
                let tag = if index + 1 == chunks.len() { "F" } else { "P" };
                let mut bytes = line(&format!("stdout {tag} "));
                bytes.extend_from_slice(chunk);
                joined = joiner.push(&parse(&bytes).unwrap());
            }
            if !chunks.is_empty() {
                prop_assert_eq!(joined.unwrap().content, content.as_bytes());
            }
        }
    }
}
