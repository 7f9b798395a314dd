//! virtio-fs: a guest's file system calls and what the host sees of them, and the other way round.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use husk_vmm_control::{Call, CallError, Device, ErrorKind, Reply, SlotIndex};
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::vmm::{Guest, Vmm, boot_request};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("files_are_shared_both_ways", files_are_shared_both_ways),
    ("file_system_calls_of_a_guest_do_what_they_say", file_system_calls_of_a_guest_do_what_they_say),
    ("large_directories_and_files_are_whole", large_directories_and_files_are_whole),
    ("what_the_host_replaces_is_seen", what_the_host_replaces_is_seen),
    ("a_read_only_export_refuses_changes", a_read_only_export_refuses_changes),
    ("exports_come_and_go", exports_come_and_go),
    ("a_file_system_can_be_taken_out_and_put_in_again", a_file_system_can_be_taken_out_and_put_in_again),
];

fn path_descriptor(path: impl AsRef<Path>) -> OwnedFd {
    openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

impl Vmm {
    fn plug_fs(&mut self, tag: &str) -> Result<SlotIndex, CallError> {
        let descriptors = path_descriptor(format!("/proc/{}/fd", self.child.id()));
        match self.call(Call::Plug(Device::Fs { tag: tag.to_owned() }), &[descriptors.as_fd()])? {
            Reply::Plugged { slot } => Ok(slot),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn export(&mut self, slot: SlotIndex, name: &str, path: &Path, read_only: bool) -> Result<Reply, CallError> {
        let tree = path_descriptor(path);
        self.call(Call::Export { slot, name: name.to_owned(), read_only }, &[tree.as_fd()])
    }

    fn unexport(&mut self, slot: SlotIndex, name: &str) -> Result<Reply, CallError> {
        self.call(Call::Unexport { slot, name: name.to_owned() }, &[])
    }
}

/// A directory on a real file system: in the box, overlayfs below /tmp has no O_TMPFILE and no attributes.
fn directory() -> tempfile::TempDir {
    let scratch = Path::new("/scratch");
    if scratch.is_dir() { tempfile::tempdir_in(scratch).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A guest that has mounted a file system with one export, `tree`.
fn share(read_only: bool) -> (Vmm, Guest, SlotIndex, tempfile::TempDir) {
    let tree = directory();
    let mut vmm = Vmm::boot(boot_request("serve"));
    vmm.wait_ready();
    let mut guest = vmm.guest();
    let slot = vmm.plug_fs("husk").unwrap();
    vmm.export(slot, "tree", tree.path(), read_only).unwrap();
    assert_eq!(guest.ask(&format!("bind {}", slot.0)), "ok");
    assert_eq!(guest.ask("file mount husk"), "ok");
    (vmm, guest, slot, tree)
}

/// Asks until the guest sees what the host did: names and attributes are believed for a second.
fn eventually(guest: &mut Guest, question: &str, answer: &str) {
    let mut last = String::new();
    for _ in 0..600 {
        last = guest.ask(question);
        if last == answer {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{question}: {last:?} instead of {answer:?}");
}

fn files_are_shared_both_ways() {
    let (_vmm, mut guest, _, tree) = share(false);
    fs::write(tree.path().join("from-host"), "hello guest").unwrap();
    assert_eq!(guest.ask("file read tree/from-host"), "hello guest");
    assert_eq!(guest.ask("file write tree/from-guest hello-host"), "ok");
    assert_eq!(fs::read(tree.path().join("from-guest")).unwrap(), b"hello-host");
    assert_eq!(guest.ask("file append tree/from-guest -again"), "ok");
    assert_eq!(fs::read(tree.path().join("from-guest")).unwrap(), b"hello-host-again");
    assert_eq!(guest.ask("file list tree"), "from-guest,from-host");
    assert_eq!(guest.ask("file list ."), "tree");
    assert!(guest.ask("file read tree/nothing").contains("No such file"));
}

fn file_system_calls_of_a_guest_do_what_they_say() {
    let (_vmm, mut guest, _, tree) = share(false);
    let host = |name: &str| tree.path().join(name);
    assert_eq!(guest.ask("file write tree/one 1"), "ok");
    assert_eq!(guest.ask("file write tree/two 22"), "ok");
    assert_eq!(guest.ask("file exchange tree/one tree/two"), "ok");
    assert_eq!(fs::read(host("one")).unwrap(), b"22");
    assert_eq!(guest.ask("file mkdir tree/directory"), "ok");
    assert_eq!(guest.ask("file rename tree/one tree/directory/three"), "ok");
    assert_eq!(guest.ask("file read tree/directory/three"), "22");

    fs::write(host("mapped"), "0123456789").unwrap();
    assert_eq!(guest.ask("file map tree/mapped abcd"), "abcd");
    assert_eq!(fs::read(host("mapped")).unwrap(), b"abcd456789");
    assert_eq!(guest.ask("file lock tree/mapped"), "true true");

    assert_eq!(guest.ask("file temporary tree named whole"), "ok");
    assert_eq!(fs::read(host("named")).unwrap(), b"whole");
    assert_eq!(guest.ask("file attribute tree/named user.colour green"), "green");

    assert_eq!(guest.ask("file sparse tree/sparse"), "ok");
    assert_eq!(guest.ask("file holes tree/sparse"), format!("{} {}", 1 << 20, (1 << 20) + 4));
    assert!(fs::metadata(host("sparse")).unwrap().blocks() < 100);

    let ends = guest.ask("file odds-and-ends tree mapped");
    assert_eq!(ends, r#"7 true 0 "\0\0cd456789""#);
    assert_eq!(guest.ask("file chown tree/named 1000 2000"), "ok");
    assert_eq!(guest.ask("file chmod tree/named 4755"), "ok");
    assert_eq!(guest.ask("file owner tree/named"), "1000:2000 4755");
    let metadata = fs::metadata(host("named")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 2000, 0o4755));
    assert_eq!(guest.ask("file remove tree/named"), "ok");
    assert!(!host("named").exists());
    // A link is text: it leads where the guest's own file system has something, and never to the host's.
    assert_eq!(guest.ask("file symlink ../../proc/cmdline tree/link"), "ok");
    assert!(guest.ask("file read tree/link").contains("test=serve"));
}

fn large_directories_and_files_are_whole() {
    let (_vmm, mut guest, _, tree) = share(false);
    let many = tree.path().join("many");
    fs::create_dir(&many).unwrap();
    for index in 0..5000 {
        File::create(many.join(format!("entry-with-a-name-{index}"))).unwrap();
    }
    assert_eq!(guest.ask("file count tree/many"), "5000");
    assert_eq!(guest.ask("file count tree/many"), "5000");
    assert_eq!(guest.ask("file fill tree/large 32"), "ok");
    let size = 32 << 20;
    assert_eq!(fs::metadata(tree.path().join("large")).unwrap().len(), size);
    assert_eq!(guest.ask("file sum tree/large"), size.to_string());
    let content = fs::read(tree.path().join("large")).unwrap();
    assert!(content.iter().all(|byte| *byte == 1));
}

/// As kubelet updates a ConfigMap's volume: files are links through `..data`, which is replaced as a whole.
fn what_the_host_replaces_is_seen() {
    let (_vmm, mut guest, _, tree) = share(true);
    let host = |name: &str| tree.path().join(name);
    for version in ["1", "2"] {
        fs::create_dir(host(&format!("..version-{version}"))).unwrap();
        fs::write(host(&format!("..version-{version}/key")), format!("value-{version}")).unwrap();
    }
    symlink("..version-1", host("..data")).unwrap();
    symlink("..data/key", host("key")).unwrap();
    fs::write(host("plain"), "before").unwrap();
    assert_eq!(guest.ask("file read tree/key"), "value-1");
    assert_eq!(guest.ask("file read tree/plain"), "before");
    symlink("..version-2", host("..new")).unwrap();
    fs::rename(host("..new"), host("..data")).unwrap();
    fs::remove_file(host("..version-1/key")).unwrap();
    fs::remove_dir(host("..version-1")).unwrap();
    eventually(&mut guest, "file read tree/key", "value-2");
    // Rewritten in its place, and longer.
    fs::write(host("plain"), "after, and longer").unwrap();
    eventually(&mut guest, "file read tree/plain", "after, and longer");
    fs::remove_file(host("plain")).unwrap();
    eventually(&mut guest, "file list tree", "..data,..version-2,key");
}

fn a_read_only_export_refuses_changes() {
    let (_vmm, mut guest, _, tree) = share(true);
    fs::write(tree.path().join("file"), "content").unwrap();
    for command in [
        "write tree/file x",
        "write tree/new x",
        "append tree/file x",
        "mkdir tree/new",
        "remove tree/file",
        "rename tree/file tree/new",
        "chmod tree/file 777",
        "chown tree/file 1 1",
        "symlink x tree/new",
        "temporary tree new x",
        "map tree/file x",
        "mkdir new",
    ] {
        let answer = guest.ask(&format!("file {command}"));
        assert!(answer.contains("Read-only file system"), "{command}: {answer}");
    }
    assert_eq!(guest.ask("file read tree/file"), "content");
    assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 1);
    assert_eq!(fs::read(tree.path().join("file")).unwrap(), b"content");
}

fn exports_come_and_go() {
    let (mut vmm, mut guest, slot, tree) = share(false);
    fs::write(tree.path().join("file"), "single").unwrap();
    vmm.export(slot, "single", &tree.path().join("file"), true).unwrap();
    assert_eq!(guest.ask("file read single"), "single");
    eventually(&mut guest, "file list .", "single,tree");
    vmm.unexport(slot, "single").unwrap();
    assert!(guest.ask("file read single").contains("error"));
    eventually(&mut guest, "file list .", "tree");
    assert_eq!(guest.ask("file read tree/file"), "single");

    let again = vmm.export(slot, "tree", tree.path(), true).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Invalid);
    assert!(again.message.contains("already"), "{again}");
    assert_eq!(vmm.export(slot, "a/b", tree.path(), true).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(vmm.export(slot, "null", Path::new("/dev/null"), true).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(vmm.unexport(slot, "nothing").unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(vmm.unexport(SlotIndex(0), "tree").unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(vmm.unexport(SlotIndex(9), "tree").unwrap_err().kind, ErrorKind::EmptySlot);
    assert_eq!(vmm.unexport(SlotIndex(99), "tree").unwrap_err().kind, ErrorKind::Invalid);
    let own = path_descriptor("/proc/self/fd");
    let wrong = vmm.call(Call::Plug(Device::Fs { tag: "other".to_owned() }), &[own.as_fd()]).unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Invalid, "{wrong}");
    assert_eq!(vmm.plug_fs("a tag").unwrap_err().kind, ErrorKind::Invalid);
}

fn a_file_system_can_be_taken_out_and_put_in_again() {
    let (mut vmm, mut guest, slot, tree) = share(false);
    fs::write(tree.path().join("file"), "content").unwrap();
    let mut footprint = None;
    for round in 0..3 {
        assert_eq!(guest.ask("file read tree/file"), "content", "round {round}");
        assert_eq!(guest.ask("file unmount"), "ok");
        assert_eq!(vmm.unplug(slot, false).unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(guest.ask(&format!("unbind {}", slot.0)), "ok");
        // The guest has given everything back: the export and the device remain.
        let now = vmm.footprint();
        assert_eq!(*footprint.get_or_insert(now), now, "round {round}");
        assert_eq!(guest.ask(&format!("bind {}", slot.0)), "ok");
        assert_eq!(guest.ask("file mount husk"), "ok");
    }
    vmm.unplug(slot, true).unwrap();
    assert!(guest.ask("cpus").starts_with('0'));
}
