//! Devices on the guest's I/O ports: COM1, the i8042's reset line, and Husk's ready and exit ports.
//!
//! | port | access | meaning |
//! |---|---|---|
//! | 0x3f8-0x3ff | both | COM1, output only; goes to the console log |
//! | 0x64 | write 0xfe | reset: ends the VM ([`ExitReason::Reset`]); reads 0: the controller is idle |
//! | 0x510 ([`PORT_READY`]) | write 0x7b | the agent is ready; later writes are ignored |
//! | 0x511 ([`PORT_EXIT`]) | write N | ends the VM with exit code N ([`ExitReason::Exit`]) |
//!
//! Other ports read as all ones and ignore writes, like an empty bus. Husk's ports take single bytes.

use std::sync::{Mutex, PoisonError};

use husk_vmm_control::ExitReason;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::console::ConsoleLog;
use crate::layout::{I8042_RESET, PORT_EXIT, PORT_I8042, PORT_READY, PORT_SERIAL, PORT_SERIAL_LAST, READY_MAGIC};

/// COM1's interrupt line, an irqfd.
#[derive(Debug)]
pub struct SerialLine(pub EventFd);

impl Trigger for SerialLine {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.write(1)
    }
}

/// What a port write can mean to the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortEvent {
    Ready,
    Ended(ExitReason),
}

/// All port devices.
#[derive(Debug)]
pub struct Ports {
    serial: Mutex<Serial<SerialLine, NoEvents, ConsoleLog>>,
}

impl Ports {
    #[must_use]
    pub fn new(line: SerialLine, log: ConsoleLog) -> Self {
        Self { serial: Mutex::new(Serial::new(line, log)) }
    }

    /// The guest writes. Strings of bytes (`outsb`) to the same port arrive as one access.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<PortEvent> {
        match port {
            PORT_SERIAL..=PORT_SERIAL_LAST => {
                let register = u8::try_from(port - PORT_SERIAL).unwrap_or(0);
                let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    // The log takes everything; a full interrupt counter means that one is pending anyway.
                    let _ = serial.write(register, *byte);
                }
                None
            }
            PORT_I8042 => data.contains(&I8042_RESET).then_some(PortEvent::Ended(ExitReason::Reset)),
            PORT_READY => (data == [READY_MAGIC]).then_some(PortEvent::Ready),
            PORT_EXIT => match data {
                [code] => Some(PortEvent::Ended(ExitReason::Exit { code: *code })),
                _ => None,
            },
            _ => None,
        }
    }

    /// The guest reads.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match (port, &mut *data) {
            (PORT_SERIAL..=PORT_SERIAL_LAST, [byte]) => {
                let register = u8::try_from(port - PORT_SERIAL).unwrap_or(0);
                *byte = self.serial.lock().unwrap_or_else(PoisonError::into_inner).read(register);
            }
            (PORT_I8042, data) => data.fill(0),
            (_, data) => data.fill(0xff),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::event::eventfd;

    fn ports() -> (Ports, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Ports::new(SerialLine(eventfd().unwrap()), ConsoleLog::new(writer.into(), 100)), reader)
    }

    #[test]
    fn serial_output_reaches_the_log() {
        let (ports, mut reader) = ports();
        for byte in b"hello" {
            assert_eq!(ports.write(0x3f8, &[*byte]), None);
        }
        drop(ports);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn the_ready_port_wants_its_magic_byte() {
        let (ports, _reader) = ports();
        assert_eq!(ports.write(0x510, &[0x7b]), Some(PortEvent::Ready));
        assert_eq!(ports.write(0x510, &[0x7c]), None);
        assert_eq!(ports.write(0x510, &[0x7b, 0]), None);
    }

    #[test]
    fn the_exit_port_and_the_i8042_end_the_vm() {
        let (ports, _reader) = ports();
        assert_eq!(ports.write(0x511, &[7]), Some(PortEvent::Ended(ExitReason::Exit { code: 7 })));
        assert_eq!(ports.write(0x64, &[0xfe]), Some(PortEvent::Ended(ExitReason::Reset)));
        assert_eq!(ports.write(0x64, &[0x20]), None);
    }

    #[test]
    fn an_empty_bus_reads_all_ones() {
        let (ports, _reader) = ports();
        let mut data = [0; 4];
        ports.read(0xcf8, &mut data);
        assert_eq!(data, [0xff; 4]);
        ports.read(0x64, &mut data[..1]);
        assert_eq!(data[0], 0);
    }
}
