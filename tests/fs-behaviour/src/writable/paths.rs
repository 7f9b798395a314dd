//! Descriptors of paths, openat2(2), handles, statx(2), and what statfs(2) tells.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use rustix::fs::{
    AtFlags, CWD, IFlags, Mode, OFlags, ResolveFlags, StatxFlags, fchmod, fchown, ioctl_getflags, ioctl_setflags,
    openat2, readlinkat, statat, statx,
};

use crate::kit::{Check, file, open};
use crate::sys;
use crate::text::{see, show, words};

fn resolve(name: &str, how: ResolveFlags) -> String {
    see(openat2(CWD, name, OFlags::RDONLY, Mode::empty(), how))
}

/// What is said to a new flag of the file `f`, and to `attempt` under it. The others are kept, as chattr does: without
/// EXTENTS ext4 would have to rewrite the file.
fn flagged(flag: IFlags, attempt: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    file("f")?;
    let opened = open("f", OFlags::RDONLY)?;
    let flags = ioctl_getflags(&opened).unwrap_or(IFlags::empty());
    let set = ioctl_setflags(&opened, flags | flag);
    let attempted = see(attempt());
    let _ = ioctl_setflags(&opened, flags);
    words([see(set), attempted])
}

pub(crate) const CHECKS: &[Check] = &[
    ("path-descriptor/only-a-path", || {
        fs::write("f", "content")?;
        let path = open("f", OFlags::PATH)?;
        words([
            see(path.read_at(&mut [0], 0)),
            see(path.write_at(b"x", 0)),
            see(fchmod(&path, Mode::from_raw_mode(0o600))),
            see(fchown(&path, None, None)),
            show(path.metadata().map(|found| found.len())),
        ])
    }),
    ("path-descriptor/reopened", || {
        fs::write("f", "content")?;
        let path = open("f", OFlags::PATH)?;
        fs::rename("f", "g")?;
        let mut text = String::new();
        open(format!("/proc/self/fd/{}", path.as_raw_fd()).as_str(), OFlags::RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }),
    ("path-descriptor/without-permission", || {
        crate::kit::file_of("f", 0, 0, 0)?;
        Ok(crate::kit::as_other(|| {
            let path = open("f", OFlags::PATH)?;
            words([show(path.metadata().map(|found| found.len())), see(open("f", OFlags::RDONLY))])
        }))
    }),
    ("path-descriptor/of-a-link", || {
        symlink("target", "l")?;
        let link = open("l", OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(show(readlinkat(&link, "", Vec::new()).map(|target| target.to_string_lossy().into_owned())))
    }),
    ("path-descriptor/of-a-directory", || {
        fs::create_dir("d")?;
        file("d/f")?;
        let directory = open("d", OFlags::PATH | OFlags::DIRECTORY)?;
        fs::rename("d", "e")?;
        words([see(statat(&directory, "f", AtFlags::empty())), see(statat(&directory, "../e/f", AtFlags::empty()))])
    }),
    ("resolve/beneath", || {
        fs::create_dir("d")?;
        file("f")?;
        file("d/f")?;
        symlink("../f", "d/up")?;
        symlink("/", "slash")?;
        let how = ResolveFlags::BENEATH;
        words([
            resolve("d/f", how),
            resolve("../x", how),
            resolve("/", how),
            resolve("slash", how),
            resolve("d/../f", how),
            resolve("d/up", how),
        ])
    }),
    ("resolve/no-links", || {
        file("f")?;
        symlink("f", "l")?;
        symlink(".", "dot")?;
        let how = ResolveFlags::NO_SYMLINKS;
        words([resolve("f", how), resolve("l", how), resolve("dot/f", how)])
    }),
    ("resolve/in-root", || {
        file("f")?;
        symlink("/f", "l")?;
        symlink("/../../f", "m")?;
        let how = ResolveFlags::IN_ROOT;
        words([resolve("l", how), resolve("m", how), resolve("/f", how), resolve("../f", how)])
    }),
    ("resolve/one-file-system", || {
        file("f")?;
        words([resolve("./f", ResolveFlags::NO_XDEV), resolve("/proc/self", ResolveFlags::NO_XDEV)])
    }),
    ("handle/of-a-file", || {
        file("f")?;
        Ok(see(sys::name_to_handle(c"f").map(drop)))
    }),
    ("handle/opened", || {
        fs::write("f", "by handle")?;
        let handle = match sys::name_to_handle(c"f") {
            Ok(handle) => handle,
            Err(error) => return Ok(crate::text::name(&error)),
        };
        let here = open(".", OFlags::RDONLY)?;
        let opened = sys::open_handle(here.as_fd(), &handle);
        Ok(show(opened.map(|fd| {
            let mut text = String::new();
            let read = fs::File::from(fd).read_to_string(&mut text);
            read.map_or_else(|error| crate::text::name(&error), |_| text)
        })))
    }),
    ("stat/kinds-and-sizes", || {
        fs::write("f", [0; 10_000])?;
        let found = fs::metadata("f")?;
        words([
            found.len().to_string(),
            (found.blocks() >= 20).to_string(),
            found.blksize().to_string(),
            found.rdev().to_string(),
            (found.dev() == fs::metadata(".")?.dev()).to_string(),
        ])
    }),
    ("stat/statx-tells-the-basics", || {
        fs::write("f", "content")?;
        let found = statx(CWD, "f", AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        let basics = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BASIC_STATS);
        words([basics.to_string(), found.stx_size.to_string(), found.stx_nlink.to_string()])
    }),
    ("stat/statx-tells-the-birth", || {
        fs::write("f", "content")?;
        let found = statx(CWD, "f", AtFlags::empty(), StatxFlags::BTIME)?;
        Ok(StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME).to_string())
    }),
    ("stat/statx-synchronised", || {
        fs::write("f", "content")?;
        let ask = |how| show(statx(CWD, "f", how, StatxFlags::SIZE).map(|found| found.stx_size));
        words([ask(AtFlags::STATX_FORCE_SYNC), ask(AtFlags::STATX_DONT_SYNC)])
    }),
    ("stat/different-files-differ", || {
        (0..100).try_for_each(|n| file(&format!("f{n}")))?;
        let numbers: Result<std::collections::BTreeSet<_>, _> =
            (0..100).map(|n| crate::kit::inode(&format!("f{n}"))).collect();
        Ok(numbers?.len().to_string())
    }),
    ("stat/stays-the-same", || {
        file("f")?;
        let before = crate::kit::inode("f")?;
        crate::kit::pause();
        Ok((crate::kit::inode("f")? == before).to_string())
    }),
    ("statfs/is-plausible", || {
        let found = rustix::fs::statvfs(".")?;
        words([
            found.f_namemax.to_string(),
            (found.f_blocks > 0 && found.f_bfree <= found.f_blocks && found.f_bavail <= found.f_bfree).to_string(),
            (found.f_files > 0 && found.f_ffree <= found.f_files).to_string(),
            found.f_bsize.to_string(),
            found.f_frsize.to_string(),
        ])
    }),
    ("statfs/follows-what-is-used", || {
        let free = || rustix::fs::statvfs(".").map(|found| found.f_bfree * found.f_frsize);
        let before = free()?;
        let file = crate::kit::update("f")?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8 << 20)?;
        file.sync_all()?;
        Ok((before - free()? >= 8 << 20).to_string())
    }),
    ("flags/append-only", || flagged(IFlags::APPEND, || fs::write("f", "y"))),
    ("flags/immutable", || flagged(IFlags::IMMUTABLE, || fs::remove_file("f"))),
    ("working-directory/moved", || {
        fs::create_dir_all("a/d")?;
        fs::create_dir("b")?;
        std::env::set_current_dir("a/d")?;
        fs::rename("../../a/d", "../../b/e")?;
        let here = std::env::current_dir()?;
        let tail: Vec<_> = here.iter().rev().take(2).map(|part| part.to_string_lossy().into_owned()).collect();
        words([tail.join(" in "), see(file("f")), crate::kit::there("../../b/e/f").into()])
    }),
    ("working-directory/of-others", || {
        file("f")?;
        crate::kit::directory_of("d", 0o700, 0, 0)?;
        words([
            see(std::env::set_current_dir("f")),
            see(std::env::set_current_dir("none")),
            crate::kit::as_other(|| Ok(see(std::env::set_current_dir("d")))),
        ])
    }),
];
