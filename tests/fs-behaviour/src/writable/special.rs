//! FIFOs, sockets, device nodes, and watching with inotify(7).

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::kit::{Check, as_other, directory_of, fifo, file, kind, mode, open};
use crate::sys::beside;
use crate::text::{see, words};

fn node(name: &str, kind: FileType, major: u32, minor: u32) -> String {
    see(mknodat(CWD, name, kind, Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor)))
}

/// What a watch of this directory sees of what is done.
fn seen(flags: WatchFlags, body: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<String> {
    let watch = inotify::init(CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, ".", flags)?;
    body()?;
    let mut room = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut room);
    let mut events = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        events.push(format!("{name}:{}", flag_names(event.events())));
    }
    Ok(events.join(" "))
}

fn flag_names(flags: ReadFlags) -> String {
    flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("+")
}

pub(crate) const CHECKS: &[Check] = &[
    ("fifo/carries-bytes", || {
        fifo("p")?;
        let writer = beside(|| {
            open("p", OFlags::WRONLY).unwrap().write_all(b"through the pipe").unwrap();
        });
        let mut text = String::new();
        open("p", OFlags::RDONLY)?.read_to_string(&mut text)?;
        words([text, writer.ended_well().to_string()])
    }),
    ("fifo/without-a-reader", || {
        fifo("p")?;
        words([see(open("p", OFlags::WRONLY | OFlags::NONBLOCK)), see(open("p", OFlags::RDONLY | OFlags::NONBLOCK))])
    }),
    ("fifo/two-names", || {
        fifo("p")?;
        fs::hard_link("p", "q")?;
        let writer = beside(|| open("q", OFlags::WRONLY).unwrap().write_all(b"one pipe").unwrap());
        let mut text = String::new();
        open("p", OFlags::RDONLY)?.read_to_string(&mut text)?;
        words([text, writer.ended_well().to_string()])
    }),
    ("fifo/mode-and-kind", || {
        fifo("p")?;
        words([kind("p"), mode("p")?, see(fifo("p"))])
    }),
    ("socket/stream", || {
        let listener = UnixListener::bind("s")?;
        let client = beside(|| {
            let mut stream = UnixStream::connect("s").unwrap();
            stream.write_all(b"over the socket").unwrap();
        });
        let mut text = String::new();
        listener.accept()?.0.read_to_string(&mut text)?;
        words([kind("s"), text, client.ended_well().to_string()])
    }),
    ("socket/datagram", || {
        let server = UnixDatagram::bind("s")?;
        UnixDatagram::unbound()?.send_to(b"datagram", "s")?;
        let mut room = [0; 20];
        let count = server.recv(&mut room)?;
        Ok(String::from_utf8_lossy(&room[..count]).into_owned())
    }),
    ("socket/address-in-use", || {
        let first = UnixListener::bind("s")?;
        let second = see(UnixListener::bind("s"));
        drop(first);
        words([second, see(UnixStream::connect("s")), see(UnixListener::bind("s"))])
    }),
    ("socket/errors", || {
        file("f")?;
        words([see(UnixStream::connect("f")), see(UnixStream::connect("none")), see(UnixListener::bind("f"))])
    }),
    ("socket/opened", || {
        let _listener = UnixListener::bind("s")?;
        Ok(see(open("s", OFlags::RDWR)))
    }),
    ("socket/permissions", || {
        directory_of("d", 0o777, 0, 0)?;
        let _listener = UnixListener::bind("d/s")?;
        crate::kit::chmod("d/s", 0o600)?;
        Ok(as_other(|| Ok(see(UnixStream::connect("d/s")))))
    }),
    ("socket/renamed", || {
        let _listener = UnixListener::bind("s")?;
        fs::rename("s", "t")?;
        words([see(UnixStream::connect("t")), see(UnixStream::connect("s"))])
    }),
    ("device/whiteout", || words([node("w", FileType::CharacterDevice, 0, 0), kind("w")])),
    ("device/null", || words([node("n", FileType::CharacterDevice, 1, 3), kind("n")])),
    ("device/block", || words([node("b", FileType::BlockDevice, 7, 99), kind("b")])),
    ("device/by-a-user", || {
        directory_of("d", 0o777, 0, 0)?;
        Ok(as_other(|| {
            words([node("d/n", FileType::CharacterDevice, 1, 3), node("d/w", FileType::CharacterDevice, 0, 0)])
        }))
    }),
    ("device/regular-by-mknod", || words([node("f", FileType::RegularFile, 0, 0), kind("f"), mode("f")?])),
    ("watch/made-and-removed", || {
        seen(WatchFlags::CREATE | WatchFlags::DELETE, || {
            file("f")?;
            fs::create_dir("d")?;
            fs::remove_file("f")
        })
    }),
    ("watch/written", || {
        file("f")?;
        seen(WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE, || open("f", OFlags::WRONLY)?.write_all(b"y"))
    }),
    ("watch/moved", || {
        file("f")?;
        seen(WatchFlags::MOVE, || fs::rename("f", "g"))
    }),
    ("watch/attributes", || {
        file("f")?;
        seen(WatchFlags::ATTRIB, || crate::kit::chmod("f", 0o600))
    }),
];
