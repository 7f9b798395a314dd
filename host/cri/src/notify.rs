//! What systemd wants to hear (sd_notify(3)), if it asks: one datagram per state.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Requests are answered from now on.
pub const READY: &str = "READY=1";
/// They are not any more.
pub const STOPPING: &str = "STOPPING=1";
/// Still at work.
pub const WATCHDOG: &str = "WATCHDOG=1";

/// Says so, if systemd (or whoever set `NOTIFY_SOCKET`) listens. That it does not come through is only logged: the
/// service works without.
pub fn notify(state: &str) {
    let Some(place) = env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else { return };
    if let Err(error) = send(place.as_bytes(), state) {
        tracing::warn!(%error, state, "systemd cannot be told");
    }
}

fn send(place: &[u8], state: &str) -> io::Result<()> {
    // An @ stands for the NUL of an abstract name (unix(7)).
    let address = match place.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often [`WATCHDOG`] is due: twice in the time after which systemd ends the service. `None`: it does not watch.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let set = |name| env::var(name).ok()?.parse::<u64>().ok();
    // The variables are inherited by children, for whom they are not.
    if set("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    set("WATCHDOG_USEC").filter(|micros| *micros > 0).map(|micros| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_whole_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("husk-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let abstract_place = format!("@{name}");
        for (socket, place) in [(by_path, path.as_os_str().as_bytes()), (by_name, abstract_place.as_bytes())] {
            send(place, READY).unwrap();
            let mut buffer = [0; 64];
            let got = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..got], READY.as_bytes());
        }
        assert!(send(dir.path().join("nobody").as_os_str().as_bytes(), READY).is_err());
    }
}
