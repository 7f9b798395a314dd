//! Reading the names of standard streams.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use husk_client::ATTACH;

/// Where a stream goes, or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A named pipe that the other side has made.
    Fifo(PathBuf),
    /// Appended to as it comes.
    File(PathBuf),
    /// Appended to in the format of CRI logs.
    CriLog(PathBuf),
    /// Fed to a logging program.
    Logger(Logger),
    /// From and to whoever attaches: input comes from them, output goes to them alone.
    Attached,
}

/// A logging program as containerd's shims run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logger {
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// A stream's name that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{stream} {name:?}: {reason}; use the absolute path of a FIFO, {ATTACH} for a container, for output file:///PATH, \
     binary:///PATH or cri-log:///PATH"
)]
pub(crate) struct InvalidDestination {
    pub(crate) stream: &'static str,
    pub(crate) name: String,
    pub(crate) reason: &'static str,
}

impl Destination {
    /// `None` for the empty name, which is `/dev/null`.
    pub(crate) fn parse(stream: &'static str, name: &str) -> Result<Option<Self>, InvalidDestination> {
        let invalid = |reason| InvalidDestination { stream, name: name.to_owned(), reason };
        if name.is_empty() {
            return Ok(None);
        }
        if name.bytes().any(|byte| byte == 0) {
            return Err(invalid("it contains a zero byte"));
        }
        if name == ATTACH {
            return Ok(Some(Self::Attached));
        }
        let Some((scheme, rest)) = name.split_once("://") else {
            return absolute(name.as_bytes().to_vec()).map(Self::Fifo).map(Some).ok_or_else(|| invalid("not absolute"));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = unescape(path)
            .ok_or_else(|| invalid("% is not followed by two hexadecimal digits"))
            .and_then(|path| absolute(path).ok_or_else(|| invalid("not absolute")))?;
        Ok(Some(match scheme {
            "fifo" => Self::Fifo(path),
            "file" => Self::File(path),
            "cri-log" => Self::CriLog(path),
            "binary" => {
                let args = arguments(query).ok_or_else(|| invalid("the query cannot be decoded"))?;
                Self::Logger(Logger { binary: path, args })
            }
            _ => return Err(invalid("unknown scheme")),
        }))
    }
}

fn absolute(path: Vec<u8>) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(path));
    path.is_absolute().then_some(path)
}

/// `a=b&c` is the arguments `a b c`, as containerd builds them.
fn arguments(query: &str) -> Option<Vec<OsString>> {
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.push(OsString::from_vec(unescape(&key.replace('+', " "))?));
        if !value.is_empty() {
            args.push(OsString::from_vec(unescape(&value.replace('+', " "))?));
        }
    }
    Some(args)
}

/// Percent-decoding of URLs; `None` when an escape is malformed or hides a zero byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push((high << 4) | low);
    }
    (!bytes.contains(&0)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> Option<Destination> {
        Destination::parse("stdout", name).unwrap()
    }

    #[test]
    fn every_kind_of_name_is_known() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("/run/f"), Some(Destination::Fifo("/run/f".into())));
        assert_eq!(parse("fifo:///run/f"), Some(Destination::Fifo("/run/f".into())));
        assert_eq!(parse("file:///var/log/a%20b"), Some(Destination::File("/var/log/a b".into())));
        assert_eq!(parse("cri-log:///var/log/0.log"), Some(Destination::CriLog("/var/log/0.log".into())));
    }

    #[test]
    fn streams_can_be_for_who_attaches() {
        assert_eq!(Destination::parse("stdin", "attach://").unwrap(), Some(Destination::Attached));
        assert_eq!(Destination::parse("stdout", "attach://").unwrap(), Some(Destination::Attached));
        assert!(Destination::parse("stdin", "attach:///x").is_err());
    }

    #[test]
    fn a_loggers_query_becomes_its_arguments() {
        let logger = Logger { binary: "/bin/log".into(), args: vec!["id".into(), "a b".into(), "x".into()] };
        assert_eq!(parse("binary:///bin/log?id=a+b&x"), Some(Destination::Logger(logger)));
    }

    #[test]
    fn other_names_are_refused() {
        for bad in ["relative", "file://host/path", "ftp:///x", "file:///a%2", "file:///a%00b", "binary:///b?%zz=1"] {
            assert!(Destination::parse("stdout", bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in ".{0,64}") {
            let _ = Destination::parse("stdout", &name);
        }
    }
}
