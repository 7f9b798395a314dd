//! What containerd tells a shim beside its command line.

use std::io::{self, IsTerminal, Read};

use containerd_shim_protos::bootstrap_api::{BootstrapParams, LogLevel};
use protobuf::Message;

use crate::args::Args;

/// Far more than containerd sends.
const MAX_PARAMS: u64 = 1024 * 1024;

/// The command line, the environment and standard input together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) namespace: String,
    pub(super) id: String,
    /// Where events go; empty for nowhere.
    pub(super) events: String,
    pub(super) debug: bool,
}

/// Reads standard input, where containerd 2.3 and later write `BootstrapParams`. Earlier ones write the runtime's
/// options there or nothing; a person at a terminal is not asked.
pub(super) fn read_stdin() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut bytes = Vec::new();
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_PARAMS).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

impl Params {
    /// `events` is the environment's `TTRPC_ADDRESS`.
    pub(super) fn new(args: &Args, events: &str, stdin: &[u8]) -> Self {
        let params = Self {
            namespace: args.namespace.clone(),
            id: args.id.clone(),
            events: events.to_owned(),
            debug: args.debug,
        };
        // Options parse as parameters, too: only what speaks of this pod is meant.
        match BootstrapParams::parse_from_bytes(stdin) {
            Ok(sent) if !sent.instance_id.is_empty() && (args.id.is_empty() || args.id == sent.instance_id) => {
                params.completed(&sent)
            }
            _ => params,
        }
    }

    fn completed(mut self, sent: &BootstrapParams) -> Self {
        self.id.clone_from(&sent.instance_id);
        if self.namespace.is_empty() {
            self.namespace.clone_from(&sent.namespace);
        }
        if self.events.is_empty() {
            self.events.clone_from(&sent.containerd_ttrpc_address);
        }
        let verbose = matches!(sent.log_level.enum_value(), Ok(LogLevel::LOG_LEVEL_DEBUG | LogLevel::LOG_LEVEL_TRACE));
        self.debug |= verbose;
        self
    }
}

#[cfg(test)]
mod tests {
    use protobuf::well_known_types::any::Any;

    use super::*;

    fn args(words: &[&str]) -> Args {
        Args::parse(words.iter().map(Into::into)).unwrap()
    }

    #[test]
    fn parameters_complete_the_command_line() {
        let sent = BootstrapParams {
            instance_id: "web".into(),
            namespace: "k8s.io".into(),
            log_level: LogLevel::LOG_LEVEL_DEBUG.into(),
            containerd_ttrpc_address: "unix:///run/containerd/containerd.sock.ttrpc".into(),
            ..BootstrapParams::default()
        };
        let params = Params::new(&args(&["start"]), "", &sent.write_to_bytes().unwrap());
        assert_eq!((params.id.as_str(), params.namespace.as_str(), params.debug), ("web", "k8s.io", true));
        assert_eq!(params.events, "unix:///run/containerd/containerd.sock.ttrpc");
    }

    #[test]
    fn options_of_an_older_containerd_are_no_parameters() {
        let options = Any { type_url: "runtimeoptions.v1.Options".into(), value: b"x".to_vec(), ..Any::default() };
        let words = ["-id", "web", "-namespace", "default", "start"];
        let params = Params::new(&args(&words), "/run/c.sock", &options.write_to_bytes().unwrap());
        assert_eq!((params.id.as_str(), params.namespace.as_str()), ("web", "default"));
        assert_eq!(params.events, "/run/c.sock");
    }

    #[test]
    fn noise_on_standard_input_is_ignored() {
        let params = Params::new(&args(&["-id", "web", "start"]), "", b"\xff\xff\xff");
        assert_eq!(params.id, "web");
    }
}
