//! The initramfs: this executable as `/init`, with the libraries it is linked to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;

/// Shared objects mapped into this process: the guest needs the same ones.
fn libraries() -> BTreeSet<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.filter(|path| path.contains(".so")).map(str::to_owned).collect()
}

/// A cpio archive in "newc" format (`Documentation/driver-api/early-userspace/buffer-format.rst`).
struct Cpio(Vec<u8>);

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let header = [0, mode, 0, 0, 1, 0, u32::try_from(content.len()).unwrap(), 0, 0, 0, 0];
        self.0.extend_from_slice(b"070701");
        for field in header {
            write!(self.0, "{field:08x}").unwrap();
        }
        write!(self.0, "{:08x}{:08x}{name}\0", name.len() + 1, 0).unwrap();
        self.pad();
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Makes the archive.
pub(crate) fn build() -> File {
    let mut cpio = Cpio(Vec::new());
    let directories = ["dev", "proc", "sys", "lib64", "usr", "usr/lib", "usr/lib/x86_64-linux-gnu"];
    for directory in directories {
        cpio.add(directory, 0o040_755, b"");
    }
    cpio.add("lib", 0o120_777, b"usr/lib");
    cpio.add("init", 0o100_755, &fs::read("/proc/self/exe").unwrap());
    for path in libraries() {
        let name = path.rsplit('/').next().unwrap();
        let directory = if name.starts_with("ld-linux") { "lib64" } else { "usr/lib/x86_64-linux-gnu" };
        cpio.add(&format!("{directory}/{name}"), 0o100_755, &fs::read(&path).unwrap());
    }
    cpio.add("TRAILER!!!", 0, b"");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&cpio.0).unwrap();
    file
}
