//! The root file system of both: busybox, a few files, and the words that the scripts speak in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::behaviour::{Disk, run};

const SAY: &str = include_str!("say.sh");

/// A directory that runc uses, and an EROFS image of it for Husk.
#[derive(Debug)]
pub struct Root {
    disk: Disk,
    directory: PathBuf,
    image: PathBuf,
}

impl Root {
    /// Makes both.
    ///
    /// # Panics
    ///
    /// When busybox or mkfs.erofs are missing.
    #[must_use]
    pub fn new() -> Self {
        let disk = Disk::new();
        let place = disk.directory("parity");
        let (directory, image) = (place.join("rootfs"), place.join("image"));
        fill(&directory).expect("a directory of ours");
        run(Command::new("mkfs.erofs").arg("-x1").arg(&image).arg(&directory));
        Self { disk, directory, image }
    }

    /// For runc.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// For Husk.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A place for bundles.
    ///
    /// # Panics
    ///
    /// When it exists.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.disk.directory(name)
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new()
    }
}

fn fill(root: &Path) -> std::io::Result<()> {
    for directory in ["bin", "lib", "etc", "tmp", "proc", "dev", "sys", "work", "home/user", "mnt"] {
        fs::create_dir_all(root.join(directory))?;
    }
    set_mode(&root.join("tmp"), 0o1777)?;
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let applets = Command::new("/bin/busybox").arg("--list").output()?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("lib/say"), SAY)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    fs::write(root.join("work/file"), "content\n")?;
    fs::write(root.join("work/secret"), "secret\n")?;
    set_mode(&root.join("work/secret"), 0o600)?;
    fs::write(root.join("work/no-program"), "text\n")?;
    fs::write(root.join("work/bad-format"), "\x7fELF of no machine\n")?;
    set_mode(&root.join("work/bad-format"), 0o755)?;
    fs::write(root.join("work/script"), "#!/bin/sh\necho script \"$@\"\n")?;
    set_mode(&root.join("work/script"), 0o755)?;
    fs::write(root.join("work/no-interpreter"), "#!/no/such/shell\n")?;
    set_mode(&root.join("work/no-interpreter"), 0o755)?;
    // A program that is root's whoever runs it.
    fs::copy("/bin/busybox", root.join("work/set-id"))?;
    set_mode(&root.join("work/set-id"), 0o6755)?;
    chown(root.join("home/user"), Some(1000), Some(1000))
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
