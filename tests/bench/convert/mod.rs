//! What it takes to get one large image from a registry, in turn: only decompressing and hashing its layer, which any
//! way must do; `husk pull`; and skopeo with umoci, which unpack it into a directory.
//!
//! No VM has a part in it, so it runs on the host itself.

mod layer;
mod measure;
mod registry;
mod report;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use husk_tests::oci::{Compression, Defaults, Layout};

use crate::Run;
use measure::{Cost, disk_bytes, measure};
use registry::Registry;

/// The layer's size before compression, and how many files it has.
const BYTES: u64 = 1 << 30;
const FILES: u32 = 50_000;

/// Everything that is compared, in the order in which it runs and is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Gzip,
    Husk,
    Umoci,
    Zstd,
    HuskZstd,
}

impl Way {
    const ALL: [Self; 5] = [Self::Gzip, Self::Husk, Self::Umoci, Self::Zstd, Self::HuskZstd];

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -dc, sha256sum",
            Self::Husk => "husk pull, gzip",
            Self::Umoci => "skopeo copy, umoci unpack",
            Self::Zstd => "zstd -dc, sha256sum",
            Self::HuskZstd => "husk pull, zstd",
        }
    }
}

/// One way, once.
#[derive(Debug, Clone, Copy)]
struct Sample {
    way: Way,
    cost: Cost,
    /// What is on disk afterwards.
    disk: u64,
}

/// The same image twice, on disk and in a registry.
struct Scene {
    husk: PathBuf,
    registry: Registry,
    gzip: PathBuf,
    zstd: PathBuf,
    /// Where each way works; emptied before it begins.
    work: PathBuf,
}

/// Prints the comparison and writes convert.md, convert.json and convert.svg.
pub(crate) fn run(run: &Run) -> Result<()> {
    let dir = tempfile::tempdir_in(&run.out).context("making room for the images")?;
    let scene = Scene::prepare(run, dir.path())?;
    let mut samples = Vec::new();
    for round in 1..=run.rounds {
        for way in Way::ALL {
            eprintln!("round {round} of {}: {}", run.rounds, way.name());
            samples.push(scene.sample(way).with_context(|| way.name())?);
        }
    }
    let report = report::Report::of(&samples).context("summing up")?;
    println!("{report}");
    run.write("convert.md", &report.to_string())?;
    run.write("convert.json", &serde_json::to_string_pretty(&report)?)?;
    run.write("convert.svg", &report.chart())
}

impl Scene {
    fn prepare(run: &Run, dir: &Path) -> Result<Self> {
        let tar = dir.join("layer.tar");
        eprintln!("writing {FILES} files into a layer of {} MiB", BYTES >> 20);
        let mut out = BufWriter::new(File::create(&tar)?);
        layer::write(&mut out, BYTES, FILES).context("writing the layer")?;
        out.flush()?;
        let registry = Registry::start(dir)?;
        let blob = |name: &str, compression| -> Result<PathBuf> {
            eprintln!("compressing it: {name}");
            let layout = Layout::create(dir.join(name))?;
            let layer = layout.layer(File::open(&tar)?, compression)?;
            let blob = dir.join(name).join("blobs").join(layer.descriptor.digest.replace(':', "/"));
            let image = layout.image("amd64", &Defaults::default(), &[layer])?;
            let layout = layout.finish(image, "1")?;
            let from = format!("oci:{}:1", layout.display());
            let to = format!("docker://{}/{name}:1", registry.address());
            let push = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
            measure(Command::new("skopeo").args(push).args([from, to])).context("pushing")?;
            Ok(blob)
        };
        let (gzip, zstd) = (blob("gzip", Compression::Gzip)?, blob("zstd", Compression::Zstd)?);
        fs::remove_file(tar)?;
        Ok(Self { husk: run.prefix.join("bin/husk"), registry, gzip, zstd, work: dir.join("work") })
    }

    fn sample(&self, way: Way) -> Result<Sample> {
        match fs::remove_dir_all(&self.work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(&self.work)?,
        }
        // What the last one left to be written is not this one's to wait for.
        rustix::fs::sync();
        let cost = match way {
            Way::Gzip => hashed("gzip", &self.gzip)?,
            Way::Zstd => hashed("zstd", &self.zstd)?,
            Way::Husk => self.pull("gzip")?,
            Way::HuskZstd => self.pull("zstd")?,
            Way::Umoci => self.unpack()?,
        };
        let kept = if way == Way::Umoci { self.work.join("bundle/rootfs") } else { self.work.clone() };
        Ok(Sample { way, cost, disk: disk_bytes(&kept)? })
    }

    fn pull(&self, image: &str) -> Result<Cost> {
        let name = format!("{}/{image}:1", self.registry.address());
        let mut husk = Command::new(&self.husk);
        husk.args(["pull", "--quiet", &name]);
        measure(husk.env("HUSK_ROOT", self.work.join("root")).env("HUSK_RUN", self.work.join("run")))
    }

    /// Of the gzip image: umoci 0.4 of Debian 12 reads no zstd.
    fn unpack(&self) -> Result<Cost> {
        let (layout, bundle) = (self.work.join("layout"), self.work.join("bundle"));
        let from = format!("docker://{}/gzip:1", self.registry.address());
        let to = format!("oci:{}:1", layout.display());
        let copy = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
        let fetched = measure(Command::new("skopeo").args(copy).args([from, to]))?;
        let image = format!("{}:1", layout.display());
        let mut umoci = Command::new("umoci");
        umoci.arg("unpack").args(["--image", &image]).arg(&bundle);
        Ok(fetched.and(measure(&mut umoci)?))
    }
}

/// Decompresses a blob and hashes what comes out, and nothing else.
fn hashed(program: &str, blob: &Path) -> Result<Cost> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" -dc <\"$1\" | sha256sum", program]).arg(blob);
    ensure!(blob.exists(), "{} is not there", blob.display());
    measure(&mut shell)
}
