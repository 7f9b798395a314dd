//! What all subjects work on: the same images, the same directory, the same network.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::network::Network;
use crate::Run;

const SCRATCH_SIZE: u64 = 512 << 20;
/// As in the guest's `files`.
const DATA_SIZE: usize = 32 << 20;
const SMALL_FILES: usize = 300;

/// Options of mkfs.ext4, those of a pod's scratch disk (host/pod/src/host/template.rs).
const EXT4: [&str; 10] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-m",
    "0",
    "-O",
    "^has_journal,quota,project",
    "-E",
    "quotatype=prjquota,lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard,root_owner=0:0",
];

/// Everything that stays between the runs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) vmm: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// The guest's program, static.
    pub(super) program: PathBuf,
    pub(super) network: Network,
    image: PathBuf,
    dir: tempfile::TempDir,
}

/// What one run works on, new for each.
#[derive(Debug)]
pub(super) struct Props {
    dir: tempfile::TempDir,
}

impl Props {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A formatted disk.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path("scratch.img")
    }

    /// A directory with an empty directory `tree`.
    pub(super) fn shared(&self) -> PathBuf {
        self.path("shared")
    }
}

impl Stage {
    pub(super) fn set(run: &Run) -> Result<Self> {
        // In the box a real disk is here; what lies below /tmp there is an overlay.
        let real = Path::new("/scratch");
        let dir = if real.is_dir() { tempfile::tempdir_in(real)? } else { tempfile::tempdir()? };
        let image = make_image(dir.path())?;
        let file = |name: &str| {
            let path = run.prefix.join(name);
            ensure!(path.exists(), "{} is missing; use tests/bench/run", path.display());
            Ok(path)
        };
        Ok(Self {
            vmm: file("bin/husk-vmm")?,
            kernel: file("lib/husk/vmlinux")?,
            initramfs: file("bench/initramfs.cpio")?,
            program: file("bench/husk-bench-guest")?,
            network: Network::make()?,
            image,
            dir,
        })
    }

    /// Whether the host's kernel can carry a tap's frames by itself.
    pub(super) fn has_vhost(&self) -> bool {
        // Opening it loads the module.
        File::options().read(true).write(true).open("/dev/vhost-net").is_ok()
    }

    /// The read-only EROFS image.
    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    pub(super) fn props(&self) -> Result<Props> {
        let props = Props { dir: tempfile::tempdir_in(self.dir.path())? };
        fs::create_dir_all(props.shared().join("tree"))?;
        File::create(props.scratch())?.set_len(SCRATCH_SIZE)?;
        tool(Command::new("mkfs.ext4").args(EXT4).arg(props.scratch()))?;
        Ok(props)
    }

    /// The guest's part of the kernel command line; `work` is `all` or `net`.
    pub(super) fn cmdline(&self, work: &str) -> String {
        format!("quiet bench.work={work} bench.address={} bench.server={}", Network::GUEST, Network::SERVER)
    }
}

/// An image with what the guest reads. Not compressed, as Husk's own are not.
fn make_image(dir: &Path) -> Result<PathBuf> {
    let (tree, image) = (dir.join("tree"), dir.join("image.erofs"));
    let small = tree.join("small");
    fs::create_dir_all(&small)?;
    for index in 0..SMALL_FILES {
        fs::write(small.join(format!("file-{index}")), b"a small file")?;
    }
    let data = File::create(tree.join("data"))?;
    data.write_all_at(&vec![b'x'; DATA_SIZE], 0)?;
    tool(Command::new("mkfs.erofs").arg(&image).arg(&tree))?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

/// Runs a program that must succeed.
pub(super) fn tool(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
