//! Entries of a log file as they come, from the beginning or its last lines, and further ones as they are written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::line::{Entry, Joiner, parse};

/// What to show.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection {
    /// Only the last so many entries of what is there now.
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl Selection {
    fn takes(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.time >= since) && self.until.is_none_or(|until| entry.time < until)
    }
}

/// Reads one log file. A file that is not there yet is an empty one.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    file: Option<File>,
    joiner: Joiner,
    /// The beginning of a line whose newline has not been written yet.
    pending: Vec<u8>,
    selection: Selection,
}

impl LogReader {
    pub(crate) fn new(path: PathBuf, selection: Selection) -> Self {
        Self { path, file: None, joiner: Joiner::default(), pending: Vec::new(), selection }
    }

    /// What is there now. Only then does the tail count.
    pub(crate) fn existing(&mut self) -> io::Result<Vec<Entry>> {
        let mut last = VecDeque::new();
        let keep = self.selection.tail.unwrap_or(usize::MAX);
        self.read(|entry| {
            last.push_back(entry);
            if last.len() > keep {
                last.pop_front();
            }
        })?;
        Ok(last.into())
    }

    /// What has been written since the last call.
    pub(crate) fn further(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.read(|entry| entries.push(entry))?;
        if entries.is_empty() && self.was_rotated()? {
            self.file = None;
            self.read(|entry| entries.push(entry))?;
        }
        Ok(entries)
    }

    /// The parts that no newline ended.
    pub(crate) fn rest(&mut self) -> Vec<Entry> {
        let selection = self.selection;
        self.joiner.rest().filter(|entry| selection.takes(entry)).collect()
    }

    fn read(&mut self, mut take: impl FnMut(Entry)) -> io::Result<()> {
        let Some(file) = open(&mut self.file, &self.path)? else { return Ok(()) };
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let count = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else { return Ok(()) };
            let mut rest = bytes;
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let (head, tail) = rest.split_at(end);
                self.pending.extend_from_slice(head);
                rest = tail.get(1..).unwrap_or_default();
                let line = std::mem::take(&mut self.pending);
                if let Some(entry) = parse(&line).and_then(|line| self.joiner.push(&line))
                    && self.selection.takes(&entry)
                {
                    take(entry);
                }
            }
            self.pending.extend_from_slice(rest);
        }
    }

    /// Whether the path now leads to another file: the log was renamed and opened anew.
    fn was_rotated(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        match std::fs::metadata(&self.path) {
            Ok(now) => Ok(now.ino() != file.metadata()?.ino()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn open<'a>(file: &'a mut Option<File>, path: &Path) -> io::Result<Option<&'a mut File>> {
    if file.is_none() {
        match File::open(path) {
            Ok(opened) => *file = Some(opened),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(file.as_mut())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        (dir, path)
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn texts(entries: Vec<Entry>) -> Vec<String> {
        entries.into_iter().map(|e| String::from_utf8(e.content).unwrap()).collect()
    }

    fn line(second: u32, text: &str) -> String {
        format!("2026-11-20T12:00:{second:02}.5Z stdout F {text}\n")
    }

    #[test]
    fn existing_entries_then_further_ones() {
        let (_dir, path) = log();
        let mut reader = LogReader::new(path.clone(), Selection::default());
        assert!(reader.existing().unwrap().is_empty(), "no file yet");
        append(&path, &line(1, "one"));
        assert_eq!(texts(reader.further().unwrap()), ["one"]);
        let two = line(2, "two");
        append(&path, &two[..20]);
        assert!(reader.further().unwrap().is_empty(), "half a line");
        append(&path, &two[20..]);
        assert_eq!(texts(reader.further().unwrap()), ["two"]);
        append(&path, "garbage\n2026-11-20T12:00:03Z stdout P open\n");
        assert!(reader.further().unwrap().is_empty());
        assert_eq!(texts(reader.rest()), ["open"]);
    }

    #[test]
    fn tail_and_times_select() {
        let (_dir, path) = log();
        (0..5).for_each(|n| append(&path, &line(n, &n.to_string())));
        let read = |selection| texts(LogReader::new(path.clone(), selection).existing().unwrap());
        assert_eq!(read(Selection { tail: Some(2), ..Selection::default() }), ["3", "4"]);
        assert!(read(Selection { tail: Some(0), ..Selection::default() }).is_empty());
        let time = |second| format!("2026-11-20T12:00:0{second}Z").parse().ok();
        assert_eq!(read(Selection { since: time(3), ..Selection::default() }), ["3", "4"]);
        assert_eq!(read(Selection { until: time(2), tail: Some(1), ..Selection::default() }), ["1"]);
    }

    #[test]
    fn a_rotated_log_goes_on_in_the_new_file() {
        let (dir, path) = log();
        append(&path, &line(1, "old"));
        let mut reader = LogReader::new(path.clone(), Selection::default());
        assert_eq!(texts(reader.existing().unwrap()), ["old"]);
        std::fs::rename(&path, dir.path().join("app.log.1")).unwrap();
        append(&path, &line(2, "new"));
        assert_eq!(texts(reader.further().unwrap()), ["new"]);
    }
}
