//! The guest's side: init. What it does stands in `test=` on the kernel command line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::exit;

/// Ports that the guest listens on when serving.
pub(crate) const COMMANDS: u32 = 7;
pub(crate) const ECHO: u32 = 8;
/// Sends a greeting, ends its sending side, and reports on the command port's log what it then received.
pub(crate) const GREETER: u32 = 9;
/// Sends [`LAST_WORDS_LEN`] bytes and ends the VM at once, with code 5.
pub(crate) const LAST_WORDS: u32 = 11;
pub(crate) const LAST_WORDS_LEN: usize = 100_000;
/// Nothing listens there.
pub(crate) const NOBODY: u32 = 10;
pub(crate) const GREETING: &[u8] = b"greetings from the guest\n";

const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

fn out(port: u16, value: u8) {
    // SAFETY: the port belongs to Husk and was opened by ioperm; writing it touches no memory of ours.
    unsafe { std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem)) };
}

fn mount(kind: &std::ffi::CStr, target: &std::ffi::CStr) {
    // SAFETY: three live C strings and no data.
    let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    assert_eq!(result, 0, "mount {target:?}");
}

fn listen(port: u32) -> OwnedFd {
    // SAFETY: plain system calls on a socket of ours; the address is a live sockaddr_vm of the given length.
    unsafe {
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "socket");
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap();
        address.svm_cid = libc::VMADDR_CID_ANY;
        address.svm_port = port;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0, "bind");
        assert_eq!(libc::listen(fd, 128), 0, "listen");
        OwnedFd::from_raw_fd(fd)
    }
}

fn serve(port: u32, handle: fn(File)) {
    let listener = listen(port);
    std::thread::spawn(move || {
        loop {
            // SAFETY: accept on a socket that lives as long as this loop; no address is asked for.
            let fd = unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
            assert!(fd >= 0, "accept");
            // SAFETY: the descriptor is new and ours.
            let connection = unsafe { File::from_raw_fd(fd) };
            std::thread::spawn(move || handle(connection));
        }
    });
}

fn end_sending(connection: &File) {
    // SAFETY: plain system call on a live descriptor.
    unsafe { libc::shutdown(connection.as_raw_fd(), libc::SHUT_WR) };
}

fn echo(mut connection: File) {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if connection.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
    }
    end_sending(&connection);
}

/// Ends its side first, and then says how much came.
fn greet(mut connection: File) {
    connection.write_all(GREETING).unwrap();
    end_sending(&connection);
    let mut received = Vec::new();
    connection.read_to_end(&mut received).unwrap();
    fs::write("/received", received.len().to_string()).unwrap();
}

fn say_last_words(mut connection: File) {
    connection.write_all(&vec![b'w'; LAST_WORDS_LEN]).unwrap();
    out(0x511, 5);
}

/// One command per line, one line of answer.
fn commands(connection: File) {
    let mut answers = connection.try_clone().unwrap();
    for line in BufReader::new(connection).lines() {
        let answer = command(&line.unwrap()).unwrap_or_else(|error| format!("error {error}"));
        writeln!(answers, "{answer}").unwrap();
    }
}

/// Writes to every page of so much memory, and answers how many MiB read back as written.
fn touch(mib: usize) -> usize {
    let mut memory = vec![0_u8; mib << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 7;
    }
    memory.chunks(4096).filter(|page| std::hint::black_box(page[0]) == 7).count() >> 8
}

fn command(line: &str) -> std::io::Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let device = |name: &str| format!("/dev/{name}");
    Ok(match words.as_slice() {
        ["cpus"] => fs::read_to_string("/sys/devices/system/cpu/online")?.trim().to_owned(),
        ["switch-cpu", cpu, state] => {
            fs::write(format!("/sys/devices/system/cpu/cpu{cpu}/online"), state)?;
            "ok".to_owned()
        }
        ["touch", mib] => touch(mib.parse().unwrap()).to_string(),
        ["memory"] => fs::read_to_string("/proc/meminfo")?.lines().next().unwrap_or_default().to_owned(),
        ["bind", slot] => {
            fs::write(format!("{DRIVER}/bind"), format!("virtio-mmio.{slot}"))?;
            "ok".to_owned()
        }
        ["unbind", slot] => {
            fs::write(format!("{DRIVER}/unbind"), format!("virtio-mmio.{slot}"))?;
            "ok".to_owned()
        }
        ["disks"] => {
            let mut names: Vec<_> =
                fs::read_dir("/sys/block")?.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|name| name.starts_with("vd"));
            names.sort();
            names.join(",")
        }
        ["attribute", disk, name] => fs::read_to_string(format!("/sys/block/{disk}/{name}"))?.trim().to_owned(),
        // The sum of all bytes, so that every one of them counts.
        ["sum", disk] => {
            let mut content = Vec::new();
            File::open(device(disk))?.read_to_end(&mut content)?;
            content.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string()
        }
        ["write", disk, offset, text] => {
            let mut file = File::options().read(true).write(true).open(device(disk))?;
            file.seek(SeekFrom::Start(offset.parse().unwrap()))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            "ok".to_owned()
        }
        // Past the page cache and the block layer's own check of a read-only disk.
        ["make-writable", disk] => {
            let file = File::open(device(disk))?;
            let writable: libc::c_int = 0;
            const BLKROSET: libc::c_ulong = 0x125d;
            // SAFETY: BLKROSET reads an int.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKROSET, &raw const writable) };
            format!("{result}")
        }
        ["file", words @ ..] => super::guest_files::command(words)?,
        ["received"] => fs::read_to_string("/received")?,
        ["print", count] => {
            let mut console = File::options().write(true).open("/dev/console")?;
            console.write_all(&vec![b'x'; count.parse().unwrap()])?;
            "ok".to_owned()
        }
        ["exit", code] => {
            out(0x511, code.parse().unwrap());
            unreachable!("the VM has ended")
        }
        other => format!("unknown command {other:?}"),
    })
}

fn ready() {
    out(0x510, 0x7b);
}

pub(crate) fn main() {
    mount(c"devtmpfs", c"/dev");
    mount(c"proc", c"/proc");
    mount(c"sysfs", c"/sys");
    // SAFETY: plain system call; it only widens what this thread, and those it makes, may do.
    assert_eq!(unsafe { libc::ioperm(0x510, 2, 1) }, 0, "ioperm");
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap();
    match cmdline.split_whitespace().find_map(|word| word.strip_prefix("test=")) {
        Some("exit") => {
            ready();
            ready();
            out(0x511, 42);
        }
        Some("reset") => {
            ready();
            // SAFETY: ends the machine.
            unsafe { libc::reboot(libc::RB_AUTOBOOT) };
        }
        // Init must not end: the kernel panics.
        Some("panic") => exit(3),
        Some("serve") => {
            serve(COMMANDS, commands);
            serve(ECHO, echo);
            serve(GREETER, greet);
            serve(LAST_WORDS, say_last_words);
            ready();
            loop {
                std::thread::park();
            }
        }
        other => panic!("no such test: {other:?}"),
    }
}
