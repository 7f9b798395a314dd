//! Processes that pull, load, tag and remove are killed, and what they leave is looked through. The process that is killed
//! is this test program, asked for [`child`] alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Disk;
use common::archive::{TestImage, hex, write_dir};
use common::layers::{Item, What, tar};
use common::registry::Registry;
use husk_image::credentials::Keychain;
use husk_image::{
    ArchiveSource, Event, Image, LoadError, Progress, PullError, PullOptions, RemoveError, Silent, Store,
};
use serde_json::json;

const KILLS: usize = 200;
const KILLS_OF_TWO: usize = 30;
/// Images by the last part of their names; the last comes from an archive.
const IMAGES: [&str; 4] = ["a", "b", "c", "d"];
/// Each image has one name or both.
const TAGS: [&str; 2] = ["1", "2"];

/// What a child is told: where, the registry, its log, and the seed of what it does.
const DIRECTORY: &str = "HUSK_TEST_CRASH_DIRECTORY";
const REGISTRY: &str = "HUSK_TEST_CRASH_REGISTRY";
const LOG: &str = "HUSK_TEST_CRASH_LOG";
const SEED: &str = "HUSK_TEST_CRASH_SEED";

/// What a child does at a time: to which image, and by which tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get(char),
    Tag(char),
    Remove(char, char),
}

/// The tags that each image has.
type Names = BTreeSet<(char, char)>;

impl Operation {
    fn apply(self, names: &mut Names) {
        match self {
            Self::Get(image) => names.insert((image, '1')),
            Self::Tag(image) => names.insert((image, '2')),
            Self::Remove(image, tag) => names.remove(&(image, tag)),
        };
    }

    fn written(self) -> String {
        match self {
            Self::Get(image) => format!("get {image} 1"),
            Self::Tag(image) => format!("tag {image} 2"),
            Self::Remove(image, tag) => format!("remove {image} {tag}"),
        }
    }

    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let letter = |at: usize| words[at].chars().next().unwrap();
        match words[0] {
            "get" => Self::Get(letter(1)),
            "tag" => Self::Tag(letter(1)),
            "remove" => Self::Remove(letter(1), letter(2)),
            other => panic!("{other}"),
        }
    }

    /// One that makes sense, all the same often.
    fn any(names: &Names, dice: &mut fastrand::Rng) -> Self {
        let image = dice.choice(IMAGES).unwrap().chars().next().unwrap();
        let tags: Vec<char> = names.iter().filter(|(of, _)| *of == image).map(|(_, tag)| *tag).collect();
        match dice.choice(&tags) {
            None => Self::Get(image),
            Some(_) if tags.len() == 1 && dice.bool() => Self::Tag(image),
            Some(tag) => Self::Remove(image, *tag),
        }
    }
}

fn name(registry: &str, image: char, tag: char) -> String {
    format!("{registry}/{image}:{tag}")
}

/// The names in a store, which are all of images that are there.
fn names(store: &Store) -> Names {
    let images = store.list().unwrap();
    let names = images.iter().flat_map(|image| &image.names);
    names
        .map(|name| {
            let (name, tag) = name.rsplit_once(':').unwrap();
            (name.chars().last().unwrap(), tag.chars().next().unwrap())
        })
        .collect()
}

/// Does one thing after another, noting each before and after, until it is killed or the log is gone.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let told = |name| std::env::var(name).unwrap();
    let (registry, seed) = (told(REGISTRY), told(SEED).parse().unwrap());
    let mut log = OpenOptions::new().append(true).open(told(LOG)).unwrap();
    let progress = Arc::new(Notes(Mutex::new(log.try_clone().unwrap())));
    let mut dice = fastrand::Rng::with_seed(seed);
    let store = Store::open(dir.join("images")).unwrap();
    while Path::new(&told(LOG)).exists() {
        let operation = Operation::any(&names(&store), &mut dice);
        log.write_all(format!("{}\n", operation.written()).as_bytes()).unwrap();
        perform(operation, &store, &dir, &registry, progress.clone()).await;
        log.write_all(b"done\n").unwrap();
    }
}

/// Notes that something happened within an operation.
struct Notes(Mutex<File>);

impl Progress for Notes {
    fn event(&self, _: Event<'_>) {
        self.0.lock().unwrap().write_all(b"event\n").unwrap();
    }
}

/// Whatever another child may take away meanwhile may be missing.
async fn perform(operation: Operation, store: &Store, dir: &Path, registry: &str, progress: Arc<dyn Progress>) {
    let name = |image, tag| name(registry, image, tag);
    match operation {
        Operation::Get('d') => {
            let reference = name('d', '1').parse().unwrap();
            match store.load(ArchiveSource::Path(dir.join("d")), Some(&reference), progress).await {
                Ok(_) | Err(LoadError::Lookup(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Operation::Get(image) => match pull(store, &name(image, '1'), progress).await {
            Ok(_) | Err(PullError::Lookup(_)) => {}
            Err(error) => panic!("{error}"),
        },
        Operation::Tag(image) => {
            if let Ok(found) = store.get(&name(image, '1')).or_else(|_| store.get(&name(image, '2'))) {
                let _ = store.tag(&found.id, &name(image, '2').parse().unwrap());
            }
        }
        Operation::Remove(image, tag) => match store.remove(&name(image, tag), false) {
            Ok(_) | Err(RemoveError::Lookup(_)) => {}
            Err(error) => panic!("{error}"),
        },
    }
}

async fn pull(store: &Store, name: &str, progress: Arc<dyn Progress>) -> Result<Image, PullError> {
    let options =
        PullOptions { registry_config: "/nonexistent".into(), keychain: Keychain::Empty, ..PullOptions::default() };
    store.pull(&name.parse().unwrap(), &options, progress).await
}

/// An image as it has to be.
struct Expected {
    test: TestImage,
    disk: Vec<u8>,
    /// Names of the files that the store has of it.
    files: BTreeSet<String>,
}

struct Scene {
    dir: tempfile::TempDir,
    registry: Registry,
    expected: BTreeMap<char, Expected>,
    dice: fastrand::Rng,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start().await);
        let store = Store::open(dir.path().join("undisturbed")).unwrap();
        let mut expected = BTreeMap::new();
        for (letter, test) in images() {
            let image = if letter == 'd' {
                write_dir(&test.layout(&json!({})), &dir.path().join("d"));
                let name = name(&registry.address.to_string(), letter, '1').parse().unwrap();
                let source = ArchiveSource::Path(dir.path().join("d"));
                store.load(source, Some(&name), Arc::new(Silent)).await.unwrap().remove(0)
            } else {
                registry.push(&letter.to_string(), "1", &test).await;
                pull(&store, &name(&registry.address.to_string(), letter, '1'), Arc::new(Silent)).await.unwrap()
            };
            assert_eq!(image.id.to_string(), test.id());
            let files = listing(image.erofs_path.parent().unwrap());
            expected.insert(letter, Expected { test, disk: Disk::of(&image).bytes(), files });
        }
        Self { dir, registry, expected, dice: fastrand::Rng::with_seed(seed) }
    }

    fn address(&self) -> String {
        self.registry.address.to_string()
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// Starts a child and waits until it is at work.
    fn start(&mut self) -> Running {
        let log = self.dir.path().join(format!("{}.log", self.dice.u64(..)));
        File::create_new(&log).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(DIRECTORY, self.dir.path())
            .env(REGISTRY, self.address())
            .env(LOG, &log)
            .env(SEED, self.dice.u64(..).to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running { process, log };
        while running.log().is_empty() {
            assert!(running.process.try_wait().unwrap().is_none(), "the child ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        running
    }

    /// Waits for a moment of some operation, that of any kind as often as that of any other.
    fn wait(&mut self, running: &Running) {
        let (kind, times, later) = match self.dice.u8(..6) {
            0 => ("get", 3, 100),
            1 | 2 => ("event", 30, 30),
            3 => ("tag", 1, 10),
            _ => ("remove", 2, 30),
        };
        let times = self.dice.usize(1..=times);
        while running.log().lines().filter(|line| line.starts_with(kind)).count() < times {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(self.dice.u64(..later * 1000)));
    }

    /// Opens the store and sees that it has complete images and nothing else. The names in it.
    fn check(&self) -> Names {
        let store = Store::open(self.images()).unwrap();
        let names = names(&store);
        let (mut dirs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for (letter, tag) in &names {
            let Expected { test, disk, files } = &self.expected[letter];
            let name = name(&self.address(), *letter, *tag);
            let image = store.get(&name).unwrap();
            assert_eq!(image.id.to_string(), test.id(), "{name} means its image");
            assert!(Disk::of(&image).bytes() == *disk, "{name} has its disk");
            assert_eq!(&listing(image.erofs_path.parent().unwrap()), files, "{name} has its files");
            dirs.insert(hex(&test.config));
            layers.extend(test.plain.iter().map(|layer| hex(layer)));
        }
        // Read by hand: a name without an image is in no list.
        if let Ok(text) = std::fs::read(self.images().join("names.json")) {
            let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let written = file["names"].as_object().unwrap().len();
            assert_eq!(written, names.len(), "every name means an image: {file:#}");
            dirs.insert("names.json".to_owned());
        }
        dirs.extend(["lock", "tmp", "layers"].map(str::to_owned));
        assert_eq!(listing(&self.images()), dirs, "there are the images that have names");
        assert_eq!(listing(&self.images().join("tmp")), BTreeSet::new(), "tmp is empty");
        assert_eq!(listing(&self.images().join("layers")), layers, "there are the layers that images have");
        for layer in layers {
            let files = listing(&self.images().join("layers").join(layer));
            assert_eq!(files, ["data", "rest.zst"].map(str::to_owned).into());
        }
        names
    }

    /// After everything: all images come as if nothing had been.
    async fn everything_works(&self) {
        let store = Store::open(self.images()).unwrap();
        for image in IMAGES.map(|name| name.chars().next().unwrap()) {
            perform(Operation::Get(image), &store, self.dir.path(), &self.address(), Arc::new(Silent)).await;
            perform(Operation::Tag(image), &store, self.dir.path(), &self.address(), Arc::new(Silent)).await;
        }
        let all = IMAGES
            .iter()
            .flat_map(|image| TAGS.map(|tag| (image.chars().next().unwrap(), tag.chars().next().unwrap())));
        assert_eq!(self.check(), all.collect());
        assert_eq!(listing(&self.images().join("layers")), listing(&self.dir.path().join("undisturbed/layers")));
    }
}

/// A child at work.
struct Running {
    process: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Kills it. What it did, and at what it was, if it was at something.
    fn kill(mut self) -> (Vec<Operation>, Option<Operation>) {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.code().is_none(), "the child ended before it was killed: {status}");
        let text = self.log();
        // A line that is not whole was never written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut begun: Vec<Operation> = Vec::new();
        let mut last = None;
        for line in whole.lines() {
            match (line, last) {
                ("event", _) => {}
                ("done", Some(operation)) => {
                    begun.push(operation);
                    last = None;
                }
                (line, _) => last = Some(Operation::read(line)),
            }
        }
        (begun, last)
    }

    /// Lets it end what it is at.
    fn stop(mut self) {
        std::fs::remove_file(&self.log).unwrap();
        assert!(self.process.wait().unwrap().success(), "the child did everything that it tried");
    }
}

fn listing(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// They share layers: all the first one.
fn images() -> Vec<(char, TestImage)> {
    let mut dice = fastrand::Rng::with_seed(1);
    let mut layer = |name: &str, files: usize| {
        let mut items = vec![Item::new(name, What::Directory)];
        for n in 0..files {
            let noise: Vec<u8> = std::iter::repeat_with(|| dice.u8(b'a'..=b'p')).take(9000 * n + 100).collect();
            items.push(Item::file(&format!("{name}/{n}"), &noise));
        }
        items.push(Item::new("etc", What::Directory));
        items.push(Item::file("etc/passwd", format!("{name}:x:1:1::/:/bin/sh\n").as_bytes()));
        tar(&items)
    };
    let [base, shared, x, y, z, w] =
        [("base", 8), ("shared", 5), ("x", 4), ("y", 3), ("z", 6), ("w", 2)].map(|(name, files)| layer(name, files));
    vec![
        ('a', TestImage::new(vec![base.clone(), shared.clone(), x.clone()])),
        ('b', TestImage::new(vec![base.clone(), shared.clone(), y])),
        ('c', TestImage::new(vec![base.clone(), z])),
        ('d', TestImage::new(vec![base, shared, x, w])),
    ]
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_every_operation_done_or_not_begun() {
    let mut scene = Scene::new(0x5eed).await;
    let (mut state, began) = (Names::new(), Instant::now());
    let mut cut = BTreeMap::new();
    for kill in 0..KILLS {
        let running = scene.start();
        scene.wait(&running);
        let (done, last) = running.kill();
        done.iter().for_each(|operation| operation.apply(&mut state));
        let mut after = state.clone();
        if let Some(operation) = last {
            operation.apply(&mut after);
            let word = operation.written().split(' ').next().unwrap().to_owned();
            *cut.entry(word).or_insert(0) += 1;
        }
        let interrupted = std::fs::read_dir(scene.images().join("tmp")).unwrap().count() > 0;
        *cut.entry("with something left in tmp".to_owned()).or_insert(0) += usize::from(interrupted);
        let journal = scene.images().join("journal.json").exists();
        *cut.entry("with a journal".to_owned()).or_insert(0) += usize::from(journal);
        let found = scene.check();
        assert!(found == state || found == after, "kill {kill}: {last:?} of {state:?} gave {found:?}");
        state = found;
    }
    println!("{KILLS} kills in {} s: {cut:?}", began.elapsed().as_secs());
    scene.everything_works().await;
}

#[tokio::test]
async fn a_killed_process_does_not_disturb_another_on_the_same_store() {
    let mut scene = Scene::new(0x2_5eed).await;
    for _ in 0..KILLS_OF_TWO {
        let (killed, stays) = (scene.start(), scene.start());
        scene.wait(&killed);
        killed.kill();
        // Tidies up beside the one at work.
        Store::open(scene.images()).unwrap();
        scene.wait(&stays);
        stays.stop();
        scene.check();
    }
    scene.everything_works().await;
}
