//! The line that a host client opens a connection with: `CONNECT <port>\n`.

/// Longest line: `CONNECT 4294967295\n` and some slack for carriage returns nobody should send.
pub(super) const LINE_MAX: usize = 32;

/// What the bytes that have arrived so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// No newline yet.
    Incomplete,
    /// A request for a guest port; the line has this many bytes.
    Connect { port: u32, length: usize },
    /// Not a request; the client is turned away.
    Invalid,
}

/// Looks at the first bytes from a client; what follows the newline is data already and stays untouched.
pub(super) fn parse(bytes: &[u8]) -> Line {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LINE_MAX { Line::Invalid } else { Line::Incomplete };
    };
    let port = bytes.get(..end).and_then(|line| line.strip_prefix(b"CONNECT ")).and_then(decimal);
    port.map_or(Line::Invalid, |port| Line::Connect { port, length: end + 1 })
}

/// Only digits: no sign, no space.
fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_understood_however_it_arrives() {
        let line = b"CONNECT 1024\n";
        for length in 0..line.len() {
            assert_eq!(parse(&line[..length]), Line::Incomplete);
        }
        assert_eq!(parse(line), Line::Connect { port: 1024, length: 13 });
        assert_eq!(parse(b"CONNECT 1024\nand data"), Line::Connect { port: 1024, length: 13 });
    }

    #[test]
    fn anything_else_is_turned_away() {
        let lines: [&[u8]; 8] = [
            b"\n",
            b"CONNECT\n",
            b"CONNECT \n",
            b"CONNECT +1\n",
            b"CONNECT 4294967296\n",
            b"connect 1\n",
            b"CONNECT 1 \n",
            &[b'x'; 32],
        ];
        for line in lines {
            assert_eq!(parse(line), Line::Invalid, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn every_port_is_understood(port: u32) {
            let line = format!("CONNECT {port}\n");
            prop_assert_eq!(parse(line.as_bytes()), Line::Connect { port, length: line.len() });
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Line::Connect { length, .. } = parse(&bytes) {
                prop_assert!(length <= LINE_MAX && length <= bytes.len());
            }
        }
    }
}
