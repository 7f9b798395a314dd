use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    let mut payload = Payload::default();
    for (path, content) in files {
        payload.insert(path, 0o644, content.as_bytes().to_vec()).unwrap();
    }
    payload
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_links_through_data_into_a_directory_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    AtomicWriter::new(target.clone(), None).write(&payload(&[("key", "value"), ("sub/dir/file", "deep")])).unwrap();
    assert_eq!(fs::read_link(target.join("key")).unwrap(), Path::new("..data/key"));
    assert_eq!(fs::read_link(target.join("sub")).unwrap(), Path::new("..data/sub"));
    assert_eq!(fs::read_to_string(target.join("sub/dir/file")).unwrap(), "deep");
    let data = fs::read_link(target.join(DATA)).unwrap();
    let name = data.to_str().unwrap();
    // ..2026_01_31_12_00_00.123456
    assert!(name.len() > 22 && name.starts_with("..20") && name.as_bytes()[21] == b'.', "{name}");
    assert_eq!(names(&target), [name, DATA, "key", "sub"]);
    assert_eq!((mode(&target), mode(&target.join(name)), mode(&target.join("sub/dir"))), (0o777, 0o755, 0o755));
    assert_eq!(fs::metadata(target.join("key")).unwrap().uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn a_second_write_swaps_the_whole_set() {
    let dir = tempfile::tempdir().unwrap();
    let writer = AtomicWriter::new(dir.path().join("config"), None);
    writer.write(&payload(&[("kept", "1"), ("gone", "1"), ("a/b", "1")])).unwrap();
    let first = writer.current().unwrap().unwrap();
    writer.write(&payload(&[("kept", "2"), ("new", "2"), ("a/c", "2")])).unwrap();
    let second = writer.current().unwrap().unwrap();
    assert_ne!(first, second);
    assert!(!first.exists(), "the old set is removed");
    let name = second.file_name().unwrap().to_str().unwrap();
    assert_eq!(names(&writer.target), [name, DATA, "a", "kept", "new"]);
    assert_eq!(names(&writer.target.join("a")), ["c"]);
    assert_eq!(fs::read_to_string(writer.target.join("kept")).unwrap(), "2");
}

#[test]
fn the_same_set_again_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writer = AtomicWriter::new(dir.path().join("config"), None);
    writer.write(&payload(&[("a", "1"), ("b/c", "2")])).unwrap();
    let first = writer.current().unwrap();
    writer.write(&payload(&[("a", "1"), ("b/c", "2")])).unwrap();
    assert_eq!(writer.current().unwrap(), first);
    writer.write(&payload(&[("a", "1")])).unwrap();
    assert_ne!(writer.current().unwrap(), first, "a file less is another set");
}

#[test]
fn a_reader_never_sees_a_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let writer = AtomicWriter::new(dir.path().join("config"), None);
    let set = |n: usize| payload(&[("one", &n.to_string()), ("two", &n.to_string())]);
    writer.write(&set(0)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As a program reads a set: through one directory, opened once.
            while !over.load(Ordering::Relaxed) {
                let Ok(set) = fs::canonicalize(writer.target.join(DATA)) else { continue };
                let read = |name: &str| fs::read_to_string(set.join(name));
                if let (Ok(one), Ok(two)) = (read("one"), read("two")) {
                    assert_eq!(one, two);
                }
            }
        });
        for n in 1..200 {
            writer.write(&set(n)).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(writer.target.join("two")).unwrap(), "199");
}

#[test]
fn what_a_killed_writer_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let writer = AtomicWriter::new(dir.path().join("config"), None);
    writer.write(&payload(&[("a", "1")])).unwrap();
    symlink("..nowhere", writer.target.join(NEXT_DATA)).unwrap();
    writer.write(&payload(&[("a", "2")])).unwrap();
    assert_eq!(fs::read_to_string(writer.target.join("a")).unwrap(), "2");
}

#[test]
fn modes_are_exact_and_a_group_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Payload::default();
    files.insert("private", 0o400, Vec::new()).unwrap();
    files.insert("script", 0o755, Vec::new()).unwrap();
    let plain = AtomicWriter::new(dir.path().join("plain"), None);
    plain.write(&files).unwrap();
    assert_eq!((mode(&plain.target.join("private")), mode(&plain.target.join("script"))), (0o400, 0o755));
    // A group that this process may give away.
    let group = rustix::process::getegid().as_raw();
    let shared = AtomicWriter::new(dir.path().join("shared"), Some(group));
    shared.write(&files).unwrap();
    assert_eq!((mode(&shared.target.join("private")), mode(&shared.target.join("script"))), (0o440, 0o755));
    assert_eq!((mode(&shared.target), mode(&shared.target.join(DATA))), (0o2777, 0o2755));
    assert_eq!(fs::metadata(shared.target.join("private")).unwrap().gid(), group);
}

#[test]
fn a_path_that_leaves_the_volume_is_no_path() {
    let mut files = Payload::default();
    for bad in ["", ".", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "..data", "..x/y", "a\0b", "./..data"] {
        assert!(matches!(files.insert(bad, 0o644, Vec::new()), Err(PayloadError::Path(_))), "{bad:?}");
    }
    assert!(files.insert(&"x".repeat(256), 0o644, Vec::new()).is_err());
    assert!(files.insert("a", 0o1000, Vec::new()).is_err() && files.insert("a", -1, Vec::new()).is_err());
    for good in [".hidden", "a..b", "...", "a/..b"] {
        assert_eq!(files.insert(good, 0o644, Vec::new()).is_ok(), good != "...", "{good:?}");
    }
    assert!(files.insert("a/..b/c", 0o644, Vec::new()).is_err(), "a/..b is a file");
    assert!(files.insert("./a//x", 0o644, Vec::new()).is_ok() && files.contains("a/x"));
    assert!(files.insert("a", 0o644, Vec::new()).is_err(), "a is a directory");
}

#[test]
fn contents_are_not_shown() {
    assert!(!format!("{:?}", payload(&[("key", "hunter2")])).contains("hunter2"));
}

proptest! {
    #[test]
    fn whatever_is_taken_stays_inside(path in "[./a]{0,12}") {
        if let Some(clean) = clean(&path) {
            prop_assert!(!clean.starts_with('/') && !clean.starts_with(".."));
            prop_assert!(clean.split('/').all(|name| !matches!(name, "" | "." | "..")));
        }
    }
}
