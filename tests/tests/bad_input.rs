//! What is broken, hostile or missing gives a clear error and leaves nothing behind. The leak check that ends every
//! test is half of each promise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::fixture::{Husk, Output, Registry, Running, images, prefix};
use husk_tests::layer::{Layer, Meta};
use husk_tests::oci::{Compression, Defaults, LayerBlob, Layout, archive};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Files that Husk shall read, out of the leak check's sight.
fn workshop() -> TempDir {
    TempDir::with_prefix_in("workshop-", "/run").unwrap()
}

/// An archive of one image, `broken:latest`, whose layers `make` adds.
fn archive_with(dir: &Path, make: impl FnOnce(&Layout) -> Vec<LayerBlob>) -> PathBuf {
    let layout = Layout::create(dir.join("layout")).unwrap();
    let layers = make(&layout);
    let image = layout.image("amd64", &Defaults::default(), &layers).unwrap();
    let layout = layout.finish(image, "docker.io/library/broken:latest").unwrap();
    let out = dir.join("archive.tar");
    archive(&layout, &out).unwrap();
    out
}

/// The tar of a layer with what `fill` puts in.
fn layer_with(fill: impl FnOnce(&mut Layer<Vec<u8>>)) -> Vec<u8> {
    let mut layer = Layer::new(Vec::new());
    fill(&mut layer);
    layer.finish().unwrap()
}

/// Loading has to fail, and the store has to be as empty as before.
fn load_fails(archive: &Path, words: &[&str]) -> Output {
    let husk = Husk::with_empty_store();
    let output = husk.run(&["load", "-i", &archive.to_string_lossy()]);
    output.fails_saying(words);
    assert_eq!(husk.run(&["images", "--format", "json"]).success().json(), serde_json::json!([]));
    let left: Vec<String> = files_below(&husk.root().join("images"));
    assert!(left.is_empty(), "the store holds parts of a refused image: {left:?}");
    output
}

/// Files of some size; locks and the like are empty.
fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            found.append(&mut files_below(&path));
        } else if metadata.len() > 0 {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Changes one byte in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// A copy of the registry's data with one repository, to be damaged.
fn registry_copy(dir: &Path, repository: &str) -> PathBuf {
    let from = images().join("registry/docker/registry/v2");
    let to = dir.join("registry/docker/registry/v2");
    fs::create_dir_all(to.join("repositories").join(repository).parent().unwrap()).unwrap();
    for part in [format!("repositories/{repository}"), "blobs".to_owned()] {
        let status = Command::new("cp").arg("-r").arg(from.join(&part)).arg(to.join(&part)).status().unwrap();
        assert!(status.success());
    }
    dir.join("registry")
}

/// Where the registry keeps a blob.
fn blob(registry: &Path, digest: &str) -> PathBuf {
    let digest = digest.trim().trim_start_matches("sha256:");
    registry.join("docker/registry/v2/blobs/sha256").join(&digest[..2]).join(digest).join("data")
}

fn tag_link(registry: &Path, repository: &str) -> PathBuf {
    registry.join("docker/registry/v2/repositories").join(repository).join("_manifests/tags/latest/current/link")
}

/// A Husk that asks a registry whose data `damage` has changed.
fn husk_with_damaged_registry(dir: &Path, damage: impl FnOnce(&Path)) -> Husk {
    let data = registry_copy(dir, "library/busybox");
    damage(&data);
    let mut husk = Husk::with_empty_store();
    husk.use_registry(Registry::serve(&data));
    husk
}

fn manifest_of(registry: &Path) -> (PathBuf, serde_json::Value) {
    let path = blob(registry, &fs::read_to_string(tag_link(registry, "library/busybox")).unwrap());
    let manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (path, manifest)
}

#[test]
fn a_corrupted_layer_in_a_registry_is_refused() {
    let dir = workshop();
    let husk = husk_with_damaged_registry(dir.path(), |data| {
        let (_, manifest) = manifest_of(data);
        flip(&blob(data, manifest["layers"][0]["digest"].as_str().unwrap()));
    });
    husk.run(&["pull", "busybox"]).fails_saying(&["busybox", "sha256:"]);
    husk.run(&["run", "--rm", "busybox", "true"]).exits(125).fails_saying(&["sha256:"]);
    assert!(files_below(&husk.root().join("images")).is_empty());
}

#[test]
fn a_corrupted_configuration_in_a_registry_is_refused() {
    let dir = workshop();
    let husk = husk_with_damaged_registry(dir.path(), |data| {
        let (_, manifest) = manifest_of(data);
        flip(&blob(data, manifest["config"]["digest"].as_str().unwrap()));
    });
    husk.run(&["pull", "busybox"]).fails_saying(&["busybox", "sha256:"]);
}

#[test]
fn a_manifest_that_is_not_the_one_of_its_digest_is_refused() {
    let dir = workshop();
    let mut reference = String::new();
    let husk = husk_with_damaged_registry(dir.path(), |data| {
        let digest = fs::read_to_string(tag_link(data, "library/busybox")).unwrap();
        reference = format!("busybox@{}", digest.trim());
        let (path, _) = manifest_of(data);
        // Still JSON, still a manifest: only its digest is another.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("{\"", "{ \"", 1)).unwrap();
    });
    husk.run(&["pull", &reference]).fails_saying(&["sha256:"]);
}

#[test]
fn a_missing_layer_in_a_registry_is_named() {
    let dir = workshop();
    let mut digest = String::new();
    let husk = husk_with_damaged_registry(dir.path(), |data| {
        let (_, manifest) = manifest_of(data);
        manifest["layers"][0]["digest"].as_str().unwrap().clone_into(&mut digest);
        fs::remove_file(blob(data, &digest)).unwrap();
    });
    husk.run(&["pull", "busybox"]).fails_saying(&["busybox", &digest[..19]]);
}

#[test]
fn a_corrupted_layer_in_an_archive_is_refused() {
    let dir = workshop();
    let archive = archive_with(dir.path(), |layout| {
        let layer = layer_with(|layer| layer.file("data", Meta::mode(0o644), &[7; 10_000]).unwrap());
        vec![layout.layer(layer.as_slice(), Compression::None).unwrap()]
    });
    let bytes = fs::read(&archive).unwrap();
    // The layer's blob is stored as it is: damage the file within the tar within the tar.
    let at = bytes.windows(100).position(|window| window == [7; 100]).unwrap();
    let mut damaged = bytes;
    damaged[at + 5_000] = 8;
    fs::write(&archive, damaged).unwrap();
    load_fails(&archive, &["sha256:"]);
}

#[test]
fn a_layer_with_another_diff_id_than_promised_is_refused() {
    let dir = workshop();
    let archive = archive_with(dir.path(), |layout| {
        let layer = layer_with(|layer| layer.file("data", Meta::mode(0o644), b"x").unwrap());
        let other = format!("sha256:{}", hex::encode(Sha256::digest(b"another layer")));
        vec![layout.layer(layer.as_slice(), Compression::Gzip).unwrap().claiming(other)]
    });
    load_fails(&archive, &["uncompressed", "sha256:"]);
}

#[test]
fn an_archive_cut_short_is_refused() {
    let dir = workshop();
    for whole in ["oci/busybox.oci.tar", "oci/busybox.docker.tar"] {
        let bytes = fs::read(images().join(whole)).unwrap();
        for length in [bytes.len() / 2, 700, 0] {
            let cut = dir.path().join("cut.tar");
            fs::write(&cut, &bytes[..length]).unwrap();
            load_fails(&cut, &["cut.tar"]);
        }
    }
}

#[test]
fn a_file_that_is_no_archive_is_refused() {
    load_fails(Path::new("/etc/passwd"), &["/etc/passwd"]);
    load_fails(Path::new("/no/such/archive.tar"), &["/no/such/archive.tar", "no such file"]);
    load_fails(Path::new("/proc/self"), &["/proc/self"]);
}

#[test]
fn a_compressed_layer_cut_short_is_refused() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let dir = workshop();
        let archive = archive_with(dir.path(), |layout| {
            let layer = layer_with(|layer| layer.file("data", Meta::mode(0o644), &vec![1; 1 << 20]).unwrap());
            let whole = layout.layer(layer.as_slice(), compression).unwrap();
            vec![layout.cut_short(&whole).unwrap()]
        });
        load_fails(&archive, &["layer"]);
    }
}

#[test]
fn a_path_that_leaves_the_image_is_refused() {
    let marks = ["/etc/x", "/x", "/run/x"];
    for path in ["../../etc/x", "a/../../../etc/x", "..", "a/..", "/../etc/x"] {
        let dir = workshop();
        let archive = archive_with(dir.path(), |layout| {
            let layer = layer_with(|layer| {
                layer.dir("a", Meta::mode(0o755)).unwrap();
                layer.file(path, Meta::mode(0o644), b"out").unwrap();
            });
            vec![layout.layer(layer.as_slice(), Compression::Gzip).unwrap()]
        });
        load_fails(&archive, &[path]);
        for mark in marks {
            assert!(!Path::new(mark).exists(), "{path} wrote {mark}");
        }
    }
}

#[test]
fn a_hard_link_that_leaves_the_image_is_refused() {
    for target in ["../../etc/shadow", "no/such/file", "dir"] {
        let dir = workshop();
        let archive = archive_with(dir.path(), |layout| {
            let layer = layer_with(|layer| {
                layer.dir("dir", Meta::mode(0o755)).unwrap();
                layer.hard_link("link", target).unwrap();
            });
            vec![layout.layer(layer.as_slice(), Compression::Gzip).unwrap()]
        });
        load_fails(&archive, &["link"]);
    }
}

#[test]
fn an_unknown_image_is_named() {
    let husk = Husk::new();
    husk.run(&["run", "--rm", "no/such-image", "true"]).exits(125).fails_saying(&["no/such-image"]);
    husk.run(&["pull", "busybox:no-such-tag"]).fails_saying(&["busybox:no-such-tag"]);
    husk.run(&["run", "--rm", "--pull", "never", "absent", "true"]).exits(125).fails_saying(&["absent", "husk pull"]);
    husk.run(&["pull", "Not A Reference"]).fails_saying(&["Not A Reference"]);
}

#[test]
fn a_registry_that_does_not_answer_is_named() {
    let mut husk = Husk::with_empty_store();
    let dir = workshop();
    fs::create_dir(dir.path().join("_default")).unwrap();
    // Port 1 (tcpmux) has had no server for decades.
    let hosts =
        "server = \"http://127.0.0.1:1\"\n[host.\"http://127.0.0.1:1\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
    fs::write(dir.path().join("_default/hosts.toml"), hosts).unwrap();
    husk.set("HUSK_REGISTRY_CONFIG_DIR", dir.path());
    husk.run(&["pull", "busybox"]).fails_saying(&["busybox", "127.0.0.1:1"]);
}

/// Runs a container in a mount namespace that `prepare`, a shell script, has changed.
fn run_where(husk: &Husk, prepare: &str) -> Output {
    let script = format!("{prepare} && exec \"$0\" run --rm busybox true");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(prefix().join("bin/husk"));
    husk.dress(&mut command);
    Running::start(&mut command, None).finish()
}

#[test]
fn a_machine_without_kvm_is_told_so() {
    let husk = Husk::new();
    husk.ok(&["pull", "busybox"]);
    run_where(&husk, "mount --bind /dev/null /dev/kvm").exits(125).fails_saying(&["/dev/kvm"]);
    husk.leaves_nothing();
    // A /dev without the node: an empty directory tree with only what a program needs to start.
    let without = "mount -t tmpfs dev /mnt && for n in null zero urandom full tty; do touch /mnt/$n && mount --bind \
                   /dev/$n /mnt/$n; done && mount --move /mnt /dev";
    run_where(&husk, without).exits(125).fails_saying(&["/dev/kvm"]);
}

/// Starts a container with one of the pod's parts replaced.
fn run_with(variable: &str, value: &Path, words: &[&str]) {
    let mut husk = Husk::new();
    husk.ok(&["pull", "busybox"]);
    husk.set(variable, value);
    let output = husk.run(&["run", "--rm", "busybox", "true"]).exits(125);
    output.fails_saying(words);
}

#[test]
fn a_kernel_file_that_is_none_is_refused() {
    run_with("HUSK_KERNEL", Path::new("/etc/passwd"), &["/etc/passwd", "kernel"]);
    run_with("HUSK_KERNEL", Path::new("/etc"), &["/etc", "kernel"]);
    run_with("HUSK_KERNEL", Path::new("/no/such/vmlinux"), &["/no/such/vmlinux", "HUSK_KERNEL"]);
}

#[test]
fn a_kernel_cut_short_is_refused() {
    let dir = workshop();
    let whole = fs::read(prefix().join("lib/husk/vmlinux")).unwrap();
    let cut = dir.path().join("vmlinux");
    for length in [whole.len() / 2, 64, 0] {
        fs::write(&cut, &whole[..length]).unwrap();
        run_with("HUSK_KERNEL", &cut, &["vmlinux", "kernel"]);
    }
}

#[test]
fn a_program_that_is_no_kernel_ends_in_an_error_and_not_in_silence() {
    run_with("HUSK_KERNEL", Path::new("/bin/true"), &["kernel"]);
}

#[test]
fn a_guest_that_never_gets_ready_is_reported_with_its_last_words() {
    // No initramfs, no init: the kernel panics and says so on the console.
    run_with("HUSK_INITRAMFS", Path::new("/etc/passwd"), &["panic"]);
    run_with("HUSK_INITRAMFS", Path::new("/no/such/initramfs"), &["/no/such/initramfs", "HUSK_INITRAMFS"]);
}

#[test]
fn a_missing_part_of_the_installation_is_named_with_its_variable() {
    run_with("HUSK_VMM", Path::new("/no/such/husk-vmm"), &["/no/such/husk-vmm", "HUSK_VMM"]);
    run_with("HUSK_SHIM", Path::new("/no/such/shim"), &["/no/such/shim", "HUSK_SHIM"]);
    run_with("HUSK_VMM", Path::new("/bin/false"), &["/bin/false"]);
}

#[test]
fn arguments_that_make_no_sense_are_refused_by_name() {
    let husk = Husk::new();
    for (arguments, word) in [
        (["--memory", "lots"], "lots"),
        (["--memory", "1"], "memory"),
        (["--cpus", "-1"], "cpus"),
        (["--cpus", "none"], "none"),
        (["--pids-limit", "x"], "x"),
        (["--name", "a/b"], "a/b"),
        (["-w", "relative"], "relative"),
        (["-v", "/host/path:/data"], "/host/path: No such file"),
        (["--no-such-flag", "x"], "--no-such-flag"),
    ] {
        let command = [&["run", "--rm"], &arguments[..], &["busybox", "true"]].concat();
        husk.run(&command).fails_saying(&[word]);
    }
}
