//! The two I/O ports through which the guest tells the virtual machine monitor that it is ready, and ends.

use std::time::Duration;

use rustix::system::RebootCommand;

/// What is written when the agent listens.
const READY: u8 = 0x7b;

/// The pair of ports, if the machine has one.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostPorts(Option<u16>);

impl HostPorts {
    /// The pair that the kernel's command line names.
    #[must_use]
    pub fn from_cmdline() -> Self {
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let base = super::cmdline::port(&cmdline);
        if base.is_none() {
            crate::warning!("the command line has no husk.port=; the host is not told that the guest is ready");
        }
        Self(base)
    }

    /// Says that the agent listens.
    pub fn ready(self) {
        if let Some(port) = self.0
            && let Err(errno) = crate::sys::write_port(port, READY)
        {
            crate::error!("write ready to port {port:#x}: {errno}");
        }
    }

    /// Ends the VM with an exit code, by the port or else by a reset. Only for PID 1.
    pub fn exit(self, code: u8) -> ! {
        if let Some(port) = self.0.and_then(|base| base.checked_add(1))
            && let Err(errno) = crate::sys::write_port(port, code)
        {
            crate::error!("write exit code {code} to port {port:#x}: {errno}");
        }
        let _ = rustix::system::reboot(RebootCommand::Restart);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
