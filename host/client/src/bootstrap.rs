//! What the shim's `start` prints: containerd's bootstrap parameters of version 3.

use serde::{Deserialize, Serialize};

/// The answer of `start`, as JSON on standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Version of the Task API.
    pub version: u32,
    /// `unix://PATH`.
    pub address: String,
    /// `ttrpc`.
    pub protocol: String,
}

impl Answer {
    /// A shim that speaks Task v3 over ttrpc on the socket at `path`.
    #[must_use]
    pub fn ttrpc(path: &str) -> Self {
        Self { version: 3, address: format!("unix://{path}"), protocol: "ttrpc".into() }
    }

    /// The socket's path; `None` for another protocol or kind of address.
    #[must_use]
    pub fn socket(&self) -> Option<&str> {
        let path = self.address.strip_prefix("unix://")?;
        (self.protocol == "ttrpc" && self.version >= 3 && path.starts_with('/')).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_reads_as_containerd_expects() {
        let answer = Answer::ttrpc("/run/husk/shim/default/web/task.sock");
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"version":3,"address":"unix:///run/husk/shim/default/web/task.sock","protocol":"ttrpc"}"#);
        assert_eq!(answer.socket(), Some("/run/husk/shim/default/web/task.sock"));
    }

    #[test]
    fn another_protocol_has_no_socket() {
        let answer = Answer { version: 3, address: "unix:///s".into(), protocol: "grpc".into() };
        assert_eq!(answer.socket(), None);
    }
}
