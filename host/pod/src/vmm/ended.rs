//! Why a VM is no more.

use std::path::Path;

use husk_vmm_control::ExitReason;

use crate::text;

/// The end of a VM, with the last words of its guest and its VMM.
#[derive(Clone, Debug)]
pub struct VmEnded {
    /// `namespace/id`.
    pub pod: String,
    pub reason: VmEndReason,
    /// At most 20 lines of the guest's console, made printable.
    pub console: Vec<String>,
    /// The same of what the VMM itself wrote.
    pub vmm_log: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEndReason {
    /// The VMM said why.
    Vm(ExitReason),
    /// The VMM process ended without a word, e.g. "signal: 9 (SIGKILL)".
    Process(String),
    /// The control socket broke; the VMM was killed.
    Control(String),
}

impl VmEnded {
    pub(crate) fn new(pod: String, reason: VmEndReason, console: &Path, vmm_log: &Path) -> Self {
        Self { pod, reason, console: text::tail(console), vmm_log: text::tail(vmm_log) }
    }

    /// Whether this is an end that somebody asked for.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self.reason, VmEndReason::Vm(ExitReason::Requested | ExitReason::Exit { code: 0 }))
    }
}

impl std::error::Error for VmEnded {}

impl std::fmt::Display for VmEnded {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "the VM of pod {} ended: ", self.pod)?;
        match &self.reason {
            VmEndReason::Vm(ExitReason::Exit { code }) => write!(out, "the guest agent left with code {code}")?,
            VmEndReason::Vm(ExitReason::Reset) => out.write_str("the guest reset itself, as after a kernel panic")?,
            VmEndReason::Vm(ExitReason::TripleFault) => out.write_str("a virtual CPU met a triple fault")?,
            VmEndReason::Vm(ExitReason::Requested) => out.write_str("it was asked to")?,
            VmEndReason::Vm(ExitReason::Fault { message }) => {
                write!(out, "a virtual CPU could not go on: {}", text::message(message))?;
            }
            VmEndReason::Process(status) => write!(out, "the VMM process ended with {status}")?,
            VmEndReason::Control(cause) => write!(out, "the VMM's control socket failed: {cause}")?,
        }
        if self.is_orderly() {
            return Ok(());
        }
        for (name, lines) in [("VMM", &self.vmm_log), ("console", &self.console)] {
            if !lines.is_empty() {
                write!(out, "\nlast lines of the {name}:")?;
            }
            for line in lines {
                write!(out, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_console_lines_are_part_of_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console.log");
        std::fs::write(&console, "Kernel panic - not syncing: \x1b[31mNo init\n").unwrap();
        let ended = VmEnded::new("ns/p".into(), VmEndReason::Vm(ExitReason::Reset), &console, Path::new("/none"));
        let message = ended.to_string();
        assert!(message.contains("ns/p") && message.contains("Kernel panic"), "{message}");
        assert!(!message.contains('\x1b'));
    }

    #[test]
    fn an_orderly_end_is_short() {
        let ended = VmEnded {
            pod: "p".into(),
            reason: VmEndReason::Vm(ExitReason::Exit { code: 0 }),
            console: vec!["noise".into()],
            vmm_log: Vec::new(),
        };
        assert!(!ended.to_string().contains("noise"));
    }
}
