//! Logs and their rotation (kubelet `pkg/kubelet/logs`): it renames the file and asks for a new one while lines come.

use std::fs;
use std::path::{Path, PathBuf};

use husk_tests::fixture::wait_until;

use super::node::Node;
use super::pod::Pod;

/// Bytes of a line before it is cut, by default.
const PIECE: usize = 16384;

/// A piece of a line.
struct Piece {
    time: String,
    stream: String,
    whole: bool,
    text: String,
}

#[test]
fn a_log_that_is_rotated_loses_and_doubles_no_line() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "logs");
    let sandbox = pod.run();
    // A line in a hundred is longer than a piece.
    let script = "trap 'stop=1' TERM; long=$(head -c 20000 /dev/zero | tr '\\0' x); i=0; \
                  while [ -z \"$stop\" ]; do i=$((i+1)); echo \"out $i\"; echo \"err $i\" >&2; \
                  [ $((i % 100)) -ne 50 ] || echo \"$long\"; done; echo last; printf unended; exit 0";
    let config = pod.container("main", 0, script);
    let main = pod.start(&sandbox, &config);
    let current = pod.log(&config);

    let mut files = Vec::new();
    for rotation in 1..=3 {
        grows_by_lines(&current, 300);
        let renamed = PathBuf::from(format!("{}.{rotation}", current.display()));
        fs::rename(&current, &renamed).unwrap();
        // What is written between the two goes to the renamed file.
        kubelet.reopen_log(&main).unwrap();
        assert!(current.exists(), "there is no new log");
        files.push(renamed);
    }
    grows_by_lines(&current, 300);
    kubelet.stop(&main, 60).unwrap();
    assert!(kubelet.reopen_log(&main).is_err(), "a container that has ended writes no log");
    assert_eq!(kubelet.container(&main).unwrap().exit_code, 0);
    files.push(current);

    let pieces: Vec<Piece> = files.iter().flat_map(|file| pieces(file)).collect();
    let out = lines(&pieces, "stdout");
    let err = lines(&pieces, "stderr");
    let count = err.len();
    let numbered: Vec<String> = (1..=count).map(|n| format!("err {n}")).collect();
    assert_eq!(err, numbered, "standard error");
    let long = "x".repeat(20000);
    let mut expected = Vec::new();
    for n in 1..=count {
        expected.push(format!("out {n}"));
        if n % 100 == 50 {
            expected.push(long.clone());
        }
    }
    expected.extend(["last".to_owned(), "unended".to_owned()]);
    assert!(out == expected, "standard output: {} of {} lines", out.len(), expected.len());
    for piece in &pieces {
        assert!(piece.text.len() <= PIECE, "a piece of {} bytes", piece.text.len());
        assert!(piece.whole || piece.text.len() == PIECE || piece.text == "unended", "a short piece that is not whole");
    }
    for stream in ["stdout", "stderr"] {
        let times: Vec<&String> = pieces.iter().filter(|p| p.stream == stream).map(|p| &p.time).collect();
        assert!(times.is_sorted(), "times of {stream} go back");
    }
    pod.collect(&sandbox);
}

fn grows_by_lines(log: &Path, count: usize) {
    let lines = || fs::read_to_string(log).unwrap_or_default().lines().count();
    wait_until(&format!("{count} lines in {}", log.display()), 20, || lines() >= count);
}

/// What a log holds; each line has its form.
fn pieces(log: &Path) -> Vec<Piece> {
    let text = fs::read_to_string(log).unwrap();
    assert!(text.ends_with('\n'), "{} ends within a line", log.display());
    let piece = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("not a line of CRI: {line:.100}")).to_owned();
        let (time, stream, tag, text) = (word(), word(), word(), word());
        // RFC3339Nano with nine digits, in which times can be compared as texts.
        let digits = time.bytes().filter(u8::is_ascii_digit).count();
        assert!(digits == 23 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "a time: {time}");
        assert!(stream == "stdout" || stream == "stderr", "a stream: {stream}");
        assert!(tag == "F" || tag == "P", "a tag: {tag}");
        Piece { time, stream, whole: tag == "F", text }
    };
    text.lines().map(piece).collect()
}

/// The lines of a stream, as kubelet joins them.
fn lines(pieces: &[Piece], stream: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for piece in pieces.iter().filter(|piece| piece.stream == stream) {
        begun.push_str(&piece.text);
        if piece.whole {
            lines.push(std::mem::take(&mut begun));
        }
    }
    if !begun.is_empty() {
        lines.push(begun);
    }
    lines
}
