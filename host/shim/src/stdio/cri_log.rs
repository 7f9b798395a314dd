//! Writing logs as the kubelet reads them.
//!
//! A line is `<RFC 3339 time with nanoseconds> <stdout|stderr> <P|F> <content>\n`; `P` says that the next line of the
//! same stream continues it. Content longer than 16 KiB is cut, and what a stream ends with unterminated is a `P`. Both
//! streams of a container append to one file, whole lines at a time, so that their lines never mix.
//! (containerd `internal/cri/io/logger.go`, cri-client `pkg/logs/logs.go`.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Longest content of one line, in bytes.
const MAX_CONTENT: usize = 16 * 1024;

/// A log file that can be opened anew while it is written.
#[derive(Debug)]
pub(crate) struct CriLog {
    path: PathBuf,
    file: Mutex<Arc<File>>,
}

impl CriLog {
    /// Opens the file for appending; makes it and its directories when they are missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(Arc::new(file)) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the path anew. What is being written goes to the old file, everything later to the new one.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let file = Arc::new(open(&self.path)?);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Appends whole lines. Blocks as long as the disk does.
    pub(crate) fn append(&self, lines: &[u8]) -> io::Result<()> {
        let file = Arc::clone(&self.file.lock().unwrap_or_else(PoisonError::into_inner));
        (&*file).write_all(lines)
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Cuts one stream into lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: &'static str,
    /// The line so far, at most [`MAX_CONTENT`].
    content: Vec<u8>,
    /// Times of one stream never go backwards, whatever the clock does.
    last: SystemTime,
}

impl Splitter {
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, content: Vec::new(), last: SystemTime::UNIX_EPOCH }
    }

    /// Appends to `lines` what `bytes` completes.
    pub(crate) fn push(&mut self, bytes: &[u8], now: SystemTime, lines: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            while self.content.len().saturating_add(text.len()) > MAX_CONTENT {
                let room = MAX_CONTENT.saturating_sub(self.content.len());
                let (fits, rest) = text.split_at_checked(room).unwrap_or((text, &[]));
                self.content.extend_from_slice(fits);
                self.emit('P', now, lines);
                text = rest;
            }
            self.content.extend_from_slice(text);
            if ended {
                if self.content.last() == Some(&b'\r') {
                    self.content.pop();
                }
                self.emit('F', now, lines);
            }
        }
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, now: SystemTime, lines: &mut Vec<u8>) {
        if !self.content.is_empty() {
            self.emit('P', now, lines);
        }
    }

    fn emit(&mut self, tag: char, now: SystemTime, lines: &mut Vec<u8>) {
        self.last = self.last.max(now);
        // Writing to a vector cannot fail.
        let _ = write!(lines, "{} {} {tag} ", humantime::format_rfc3339_nanos(self.last), self.stream);
        lines.append(&mut self.content);
        lines.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const TIME: SystemTime = UNIX_EPOCH;

    fn split(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut splitter, mut lines) = (Splitter::new("stdout"), Vec::new());
        for piece in pieces {
            splitter.push(piece, TIME, &mut lines);
        }
        splitter.finish(TIME, &mut lines);
        lines
    }

    /// What a reader of the log makes of it.
    fn reassemble(log: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap();
            let mut fields = line.splitn(4, |byte| *byte == b' ');
            let time = std::str::from_utf8(fields.next().unwrap()).unwrap();
            assert!(humantime::parse_rfc3339(time).is_ok() && time.len() == 30, "{time}");
            assert_eq!(fields.next().unwrap(), b"stdout");
            let tag = fields.next().unwrap();
            let content = fields.next().unwrap();
            assert!(content.len() <= MAX_CONTENT);
            bytes.extend_from_slice(content);
            match tag {
                b"F" => bytes.push(b'\n'),
                b"P" => {}
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    #[test]
    fn a_line_has_time_stream_tag_and_content() {
        assert_eq!(
            split(&[b"hello\nwor", b"ld"]),
            *b"1970-01-01T00:00:00.000000000Z stdout F hello\n\
              1970-01-01T00:00:00.000000000Z stdout P world\n"
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_not_cut() {
        let line = [vec![b'x'; MAX_CONTENT], vec![b'\n']].concat();
        assert_eq!(split(&[&line]).iter().filter(|byte| **byte == b'\n').count(), 1);
        let longer = [vec![b'x'; MAX_CONTENT + 1], vec![b'\n']].concat();
        assert_eq!(split(&[&longer]).iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn times_never_go_backwards() {
        let (mut splitter, mut lines) = (Splitter::new("stderr"), Vec::new());
        splitter.push(b"a\n", UNIX_EPOCH + Duration::from_secs(9), &mut lines);
        splitter.push(b"b\n", UNIX_EPOCH + Duration::from_secs(3), &mut lines);
        let text = String::from_utf8(lines).unwrap();
        assert!(text.lines().all(|line| line.starts_with("1970-01-01T00:00:09.000000000Z stderr F ")), "{text}");
    }

    #[test]
    fn a_reopened_log_goes_on_in_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod/0.log");
        let log = CriLog::open(&path).unwrap();
        log.append(b"one\n").unwrap();
        let rotated = directory.path().join("pod/0.log.1");
        fs::rename(&path, &rotated).unwrap();
        log.append(b"two\n").unwrap();
        log.reopen().unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(fs::read(rotated).unwrap(), b"one\ntwo\n");
        assert_eq!(fs::read(path).unwrap(), b"three\n");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let expected = pieces.concat();
            prop_assert_eq!(reassemble(&split(&pieces)), without_carriage_returns(&expected));
        }

        #[test]
        fn long_lines_are_read_back_whole(
            lengths in prop::collection::vec(0..3 * MAX_CONTENT, 1..4),
            end in prop::sample::select(vec![&b""[..], b"\n", b"\r\n", b"\r"]),
            chunk in 1..MAX_CONTENT * 2,
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| [vec![b'x'; *length], end.to_vec()].concat()).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(chunk).collect();
            prop_assert_eq!(reassemble(&split(&pieces)), without_carriage_returns(&bytes));
        }
    }

    /// The one thing that the format drops: a carriage return that ends a line.
    fn without_carriage_returns(bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\r\n") {
                Some(text) => {
                    kept.extend_from_slice(text);
                    kept.push(b'\n');
                }
                None => kept.extend_from_slice(line),
            }
        }
        kept
    }
}
