//! Layers that are made to hurt. Each is either right or refused with a reason, in a process of its own whose memory is
//! looked at, and nothing appears outside the store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::Disk;
use common::archive::{TestImage, digest, tar_of, write_dir};
use common::layers::{Item, What, raw_entry, tar};
use husk_image::{ArchiveSource, Silent, Store};
use serde_json::json;
use tar::{EntryType, Header};

/// Which case a child is to load, and where its layout is.
const LAYOUT: &str = "HUSK_TEST_CORPUS_LAYOUT";

/// What a process needs before it has read anything, and buffers that do not depend on the image.
const FLOOR_MIB: u64 = 64;

/// One layer, and what is to become of it.
struct Case {
    name: &'static str,
    /// The blob; bytes are made when they are needed.
    blob: Box<dyn Fn() -> Vec<u8>>,
    /// `None`: it is right. Otherwise a part of the reason.
    refused: Option<&'static str>,
    /// The most memory that it may take beyond [`FLOOR_MIB`].
    memory_mib: u64,
}

fn case(
    name: &'static str,
    refused: Option<&'static str>,
    memory_mib: u64,
    blob: impl Fn() -> Vec<u8> + 'static,
) -> Case {
    Case { name, blob: Box::new(blob), refused, memory_mib }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

/// One entry of this path, which need not be one that tools write.
fn entry(path: &[u8], kind: EntryType, link: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pax = vec![("path".to_owned(), path.to_vec())];
    pax.extend((!link.is_empty()).then(|| ("linkpath".to_owned(), link.to_vec())));
    raw_entry(&mut out, &mut header(kind, 0), &pax, &[]);
    out
}

fn end(mut layer: Vec<u8>) -> Vec<u8> {
    layer.resize(layer.len() + 1024, 0);
    layer
}

fn gzip(reader: impl Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut { reader }, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// Entries by the hundred thousand, compressed as they are made.
fn many(count: u32, mut one: impl FnMut(u32, &mut Vec<u8>)) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.clear();
        one(number, &mut bytes);
        encoder.write_all(&bytes).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

fn short(path: &str, kind: EntryType, out: &mut Vec<u8>) {
    let mut header = header(kind, 0);
    header.set_path(path).unwrap();
    header.set_cksum();
    out.extend(header.as_bytes());
}

fn paths() -> Vec<Case> {
    let file = EntryType::Regular;
    let link = EntryType::Link;
    vec![
        case("dots", Some("leads out"), 8, move || end(entry(b"../x", file, b""))),
        case("dots in the middle", Some("leads out"), 8, move || end(entry(b"a/../../x", file, b""))),
        case("dots at the end", Some("leads out"), 8, move || end(entry(b"a/..", EntryType::Directory, b""))),
        case("dots in a whiteout", Some("names nothing"), 8, move || end(entry(b"a/.wh...", file, b""))),
        case("an absolute path", None, 8, move || end(entry(b"/etc/x", file, b""))),
        case("backslashes", None, 8, move || end(entry(b"..\\..\\x", file, b""))),
        case("a NUL", Some("NUL"), 8, move || end(entry(b"a\0b", file, b""))),
        case("no UTF-8", None, 8, move || end(entry(b"\xff\xfe/\x80", file, b""))),
        case("a name of 255 bytes", None, 8, move || end(entry(&[b'n'; 255], file, b""))),
        case("a name of 4096 bytes", Some("longer than 255"), 8, move || end(entry(&[b'n'; 4096], file, b""))),
        case("a path of 8192 bytes", Some("longer than 4096"), 8, move || end(entry(&b"a/".repeat(4096), file, b""))),
        case("a path of 300 directories", Some("deep"), 8, move || end(entry(&b"a/".repeat(300), file, b""))),
        case("a hard link to nowhere", Some("does not have"), 8, move || end(entry(b"l", link, b"none"))),
        case("a hard link to outside", Some("leads out"), 8, move || end(entry(b"l", link, b"../../etc/shadow"))),
        case("a hard link to itself", Some("does not have"), 8, move || end(entry(b"l", link, b"l"))),
        case("a hard link to a directory", Some("is a directory"), 8, move || {
            end([entry(b"d", EntryType::Directory, b""), entry(b"l", link, b"d")].concat())
        }),
        case("a file below a link", Some("not a directory"), 8, move || {
            end([entry(b"l", EntryType::Symlink, b"/etc"), entry(b"l/passwd", file, b"")].concat())
        }),
        case("the root as a link", Some("root"), 8, move || end(entry(b"/", EntryType::Symlink, b"/etc"))),
        case("a whiteout of the root", Some("names nothing"), 8, move || end(entry(b".wh.", file, b""))),
        case("an opaque root", None, 8, || tar(&[Item::new("", What::Opaque), Item::file("f", b"1")])),
        case("a file and a directory of one name", None, 8, || {
            tar(&[Item::file("n", b"1"), Item::new("n", What::Directory), Item::file("n/f", b"2")])
        }),
        case("a ring of links", None, 8, || {
            tar(&[
                Item::new("etc", What::Symlink("etc2".to_owned())),
                Item::new("etc2", What::Symlink("etc".to_owned())),
            ])
        }),
        case("devices", None, 8, || {
            tar(&[Item::new("sda", What::BlockDevice(8, 0)), Item::new("mem", What::CharDevice(1, 1))])
        }),
    ]
}

fn headers() -> Vec<Case> {
    let with_size = |size: &'static [u8]| {
        move || {
            let mut header = header(EntryType::Regular, 0);
            header.set_path("f").unwrap();
            header.as_mut_bytes()[124..136].fill(0);
            header.as_mut_bytes()[124..124 + size.len()].copy_from_slice(size);
            header.set_cksum();
            end(header.as_bytes().to_vec())
        }
    };
    let pax = |records: &'static [(&'static str, &'static [u8])], data: &'static [u8]| {
        move || {
            let mut out = Vec::new();
            let mut header = header(EntryType::Regular, data.len() as u64);
            header.set_path("f").unwrap();
            let records: Vec<_> = records.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
            raw_entry(&mut out, &mut header, &records, data);
            end(out)
        }
    };
    vec![
        case("a negative size", Some("size"), 8, with_size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
        case("a size that is no number", Some("size"), 8, with_size(b"0000000zz")),
        case("a file larger than the stream", Some("end"), 8, with_size(b"00000040000")),
        case("an exabyte", Some("f"), 8, with_size(b"\x80\0\0\0\x10\0\0\0\0\0\0\0")),
        // The header says 4 bytes, PAX says none: an entry would hide in the difference (CVE-2025-62518).
        case("a size that PAX takes back", Some("checksum"), 8, pax(&[("size", b"0")], b"hidden")),
        case("a size that PAX enlarges", Some("end"), 8, pax(&[("size", b"1048576")], b"short")),
        case("a negative number in PAX", Some("decimal"), 8, pax(&[("size", b"-1")], b"")),
        case("a user beyond 32 bits", Some("uid"), 8, pax(&[("uid", b"4294967296")], b"")),
        case(
            "a sparse file of 8 exabytes",
            Some("bytes"),
            8,
            pax(
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"9223372036854775807"),
                    ("GNU.sparse.map", b"0,1"),
                ],
                b"x",
            ),
        ),
        case(
            "a sparse file of 16 terabytes",
            None,
            16,
            pax(
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"17592186044416"),
                    ("GNU.sparse.map", b"17592186044415,1"),
                ],
                b"x",
            ),
        ),
        case(
            "runs that overlap",
            Some("overlap"),
            8,
            pax(
                &[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"100"),
                    ("GNU.sparse.map", b"0,4,2,4"),
                ],
                b"12345678",
            ),
        ),
        case("a global header that renames all", Some("global"), 8, || {
            let mut out = Vec::new();
            let payload = b"12 path=abc\n";
            let mut header = header(EntryType::XGlobalHeader, payload.len() as u64);
            raw_entry(&mut out, &mut header, &[], payload);
            end([out, tar(&[Item::file("f", b"1")])].concat())
        }),
        case("an unknown type", Some("type"), 8, || end(entry(b"f", EntryType::new(b'Z'), b""))),
        case("a long name without end", Some("extension"), 8, || {
            let mut header = header(EntryType::GNULongName, 1 << 40);
            header.set_cksum();
            header.as_bytes().to_vec()
        }),
        case("an extension of nothing", Some("after an extension"), 8, || {
            let mut header = header(EntryType::GNULongName, 0);
            header.set_cksum();
            end(header.as_bytes().to_vec())
        }),
        case("an entry behind the end", Some("end-of-archive"), 8, || {
            [vec![0; 512], tar(&[Item::file("f", b"1")])].concat()
        }),
        case("nothing at all", None, 8, Vec::new),
        case("half of a header", Some("read"), 8, || tar(&[Item::file("f", b"1")])[..300].to_vec()),
    ]
}

fn masses() -> Vec<Case> {
    let file = EntryType::Regular;
    vec![
        case("a gigabyte of zeros, gzip", Some("unpacks to more"), 8, || {
            let mut start = header(EntryType::Regular, 1 << 30);
            start.set_path("zeros").unwrap();
            start.set_cksum();
            gzip(start.as_bytes().chain(std::io::repeat(0).take((1 << 30) + 1024)))
        }),
        case("zstd in a window of 2 GiB", Some("cannot be read"), 8, || {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(31).unwrap();
            encoder.write_all(&tar(&[Item::file("f", &[1; 5000])])).unwrap();
            encoder.finish().unwrap()
        }),
        case("half a million files", None, 256, move || {
            many(500_000, |number, out| short(&format!("d{}/{number}", number % 700), file, out))
        }),
        case("half a million names of one file", None, 256, move || {
            let mut first = true;
            many(500_000, move |number, out| {
                if std::mem::take(&mut first) {
                    return short("f", file, out);
                }
                let mut header = header(EntryType::Link, 0);
                header.set_path(format!("l{number}")).unwrap();
                header.set_link_name("f").unwrap();
                header.set_cksum();
                out.extend(header.as_bytes());
            })
        }),
        case("a file over and over", None, 160, move || many(300_000, |_, out| short("f", file, out))),
        case("whiteouts of nothing", None, 8, move || {
            many(300_000, |number, out| short(&format!(".wh.{number}"), file, out))
        }),
        // 250 directories for each entry of some 600 bytes.
        case("directories that nobody describes", Some("bytes of metadata"), 1100, move || {
            many(20_000, |number, out| {
                let path = format!("{number:06}/{}f", "d/".repeat(250));
                out.extend(entry(path.as_bytes(), file, b""));
            })
        }),
        case("attributes by the megabyte", None, 500, move || {
            let value = vec![b'v'; 65_000];
            many(3_000, move |number, out| {
                let mut header = header(EntryType::Regular, 0);
                let mut records = vec![("path".to_owned(), number.to_string().into_bytes())];
                records.push(("SCHILY.xattr.user.a".to_owned(), value.clone()));
                raw_entry(out, &mut header, &records, &[]);
            })
        }),
        case("sparse maps by the megabyte", Some("bytes of metadata"), 160, move || {
            many(2_000, |number, out| {
                let records = [
                    ("path", number.to_string()),
                    ("GNU.sparse.major", "0".to_owned()),
                    ("GNU.sparse.minor", "1".to_owned()),
                    ("GNU.sparse.size", (1_u64 << 40).to_string()),
                    ("GNU.sparse.map", "0,0".to_owned()),
                ];
                let records: Vec<_> =
                    records.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect();
                raw_entry(out, &mut header(EntryType::Regular, 0), &records, &[]);
            })
        }),
    ]
}

fn cases() -> Vec<Case> {
    paths().into_iter().chain(headers()).chain(masses()).collect()
}

/// Loads the layout that it is told of, says what became of it, and how much memory that took.
#[tokio::test]
async fn child() {
    let Some(layout) = std::env::var_os(LAYOUT).map(PathBuf::from) else { return };
    let store = Store::open(layout.with_file_name("store")).unwrap();
    let loaded = store.load(ArchiveSource::Path(layout.clone()), None, Arc::new(Silent)).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    let outcome = loaded.map_or_else(|error| error.to_string(), |_| "loaded".to_owned());
    std::fs::write(layout.with_file_name("outcome"), format!("{}\n{outcome}", peak / 1024)).unwrap();
}

/// The layout of an image with that layer.
fn lay_out(dir: &Path, blob: Vec<u8>) -> PathBuf {
    let mut plain = Vec::new();
    let unpacked =
        husk_image::layer::decompress(&blob[..]).and_then(|reader| reader.take(1 << 30).read_to_end(&mut plain));
    let diff_id = if unpacked.is_ok() { digest(&plain) } else { digest(b"") };
    drop(plain);
    let mut config: serde_json::Value = serde_json::from_slice(&TestImage::new(Vec::new()).config).unwrap();
    config["rootfs"]["diff_ids"] = json!([diff_id]);
    let image = TestImage::with_config(vec![blob], Vec::new(), config.to_string().into_bytes());
    let layout = dir.join("layout");
    write_dir(&image.layout(&json!({})), &layout);
    layout
}

#[tokio::test]
async fn every_layer_of_the_corpus_is_right_or_refused_within_bounds() {
    let mut wrong = Vec::new();
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        let layout = lay_out(dir.path(), (case.blob)());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(LAYOUT, &layout)
            .output()
            .unwrap();
        let outcome = std::fs::read_to_string(dir.path().join("outcome"));
        let Ok(outcome) = outcome else {
            wrong.push(format!("{}: {}", case.name, String::from_utf8_lossy(&status.stdout)));
            continue;
        };
        let (peak, text) = outcome.split_once('\n').unwrap();
        println!("{:>45} {peak:>5} MiB  {}", case.name, text.chars().take(150).collect::<String>());
        let as_wanted = case.refused.map_or(text == "loaded", |part| text != "loaded" && text.contains(part));
        if !as_wanted {
            wrong.push(format!("{}: {text}", case.name));
        }
        if peak.parse::<u64>().unwrap() > FLOOR_MIB + case.memory_mib {
            wrong.push(format!("{}: {peak} MiB", case.name));
        }
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["layout", "outcome", "store"], "{}", case.name);
        let store = Store::open(dir.path().join("store")).unwrap();
        let images = store.list().unwrap();
        assert_eq!(images.len(), usize::from(text == "loaded"), "{}", case.name);
        let layers = std::fs::read_dir(dir.path().join("store/layers")).unwrap().count();
        assert_eq!(layers, images.len(), "{}", case.name);
        for image in images {
            let disk = Disk::of(&store.get(&image.id.to_string()).unwrap());
            if disk.len() < 8 << 20 && common::reader::largest(&disk) < 8 << 20 {
                common::fsck(&disk);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_changed_archive_is_refused_or_right_and_never_a_panic() {
    let image = TestImage::new(vec![tar(&[Item::file("f", &[1; 5000])]), tar(&[Item::new("f", What::Whiteout)])]);
    let good = tar_of(&image.layout(&json!({"org.opencontainers.image.ref.name": "docker.io/library/app:1"})));
    let docker = tar_of(&image.docker_save(&["app:1"]));
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..400 {
        let mut bytes = if round % 2 == 0 { good.clone() } else { docker.clone() };
        for _ in 0..dice.usize(1..5) {
            let at = dice.usize(..bytes.len());
            match dice.u8(..4) {
                0 => bytes[at] ^= 1 << dice.u8(..8),
                1 => bytes[at] = dice.u8(..),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let from = dice.usize(..bytes.len());
                    let len = dice.usize(..600).min(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + len, at);
                }
            }
        }
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let source = ArchiveSource::Reader(Box::new(std::io::Cursor::new(bytes)));
        let loaded = store.load(source, None, Arc::new(Silent)).await;
        if let Ok(images) = loaded {
            images.iter().for_each(|image| drop(common::reader::read(&Disk::of(image))));
        }
    }
}
