//! Who may do what: the bits of a mode, groups, and directories.

use std::fs;

use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};

use crate::kit::{Check, GROUP, OTHER, OWNER, as_other, as_owner, as_user, directory_of, file_of, open, there};
use crate::text::{see, words};

fn reads(name: &str) -> String {
    see(open(name, OFlags::RDONLY))
}

fn writes(name: &str) -> String {
    see(open(name, OFlags::WRONLY))
}

fn both(name: &str) -> std::io::Result<String> {
    words([reads(name), writes(name)])
}

/// As somebody in the file's group, by his own group or by a supplementary one.
fn as_member(body: impl Fn() -> std::io::Result<String>) -> std::io::Result<String> {
    words([as_user(OTHER, GROUP, &[], &body), as_user(OTHER, OTHER, &[GROUP], &body)])
}

pub(crate) const CHECKS: &[Check] = &[
    ("access/root-needs-no-permission", || {
        file_of("f", 0o000, OWNER, GROUP)?;
        both("f")
    }),
    ("access/owner-without-any", || {
        file_of("f", 0o077, OWNER, GROUP)?;
        Ok(as_owner(|| both("f")))
    }),
    ("access/owner-reads", || {
        file_of("f", 0o400, OWNER, GROUP)?;
        Ok(as_owner(|| both("f")))
    }),
    ("access/owner-writes", || {
        file_of("f", 0o200, OWNER, GROUP)?;
        Ok(as_owner(|| both("f")))
    }),
    ("access/group-reads", || {
        file_of("f", 0o040, OWNER, GROUP)?;
        as_member(|| both("f"))
    }),
    ("access/group-writes", || {
        file_of("f", 0o020, OWNER, GROUP)?;
        as_member(|| both("f"))
    }),
    ("access/group-before-others", || {
        file_of("f", 0o606, OWNER, GROUP)?;
        as_member(|| both("f"))
    }),
    ("access/not-in-the-group", || {
        file_of("f", 0o060, OWNER, GROUP)?;
        Ok(as_other(|| both("f")))
    }),
    ("access/others-read", || {
        file_of("f", 0o004, OWNER, GROUP)?;
        Ok(as_other(|| both("f")))
    }),
    ("access/others-write", || {
        file_of("f", 0o002, OWNER, GROUP)?;
        Ok(as_other(|| both("f")))
    }),
    ("access/truncating-needs-write", || {
        file_of("f", 0o444, OWNER, GROUP)?;
        let other = as_other(|| Ok(see(open("f", OFlags::RDONLY | OFlags::TRUNC))));
        words([other, crate::kit::read("f")])
    }),
    ("access/directory-search-only", || {
        directory_of("d", 0o711, 0, 0)?;
        fs::write("d/f", "x")?;
        Ok(as_other(|| words([see(fs::metadata("d/f")), see(fs::read_dir("d"))])))
    }),
    ("access/directory-read-only", || {
        directory_of("d", 0o744, 0, 0)?;
        fs::write("d/f", "x")?;
        Ok(as_other(|| words([see(fs::metadata("d/f")), see(fs::read_dir("d"))])))
    }),
    ("access/directory-closed", || {
        directory_of("d", 0o700, 0, 0)?;
        fs::write("d/f", "x")?;
        Ok(as_other(|| words([see(fs::metadata("d/f")), see(fs::read_dir("d")), see(fs::metadata("d/none"))])))
    }),
    ("access/directory-of-the-group", || {
        directory_of("d", 0o770, 0, GROUP)?;
        as_member(|| {
            let made = see(fs::write("d/f", "x"));
            words([made, crate::kit::owner("d/f")?, see(fs::remove_file("d/f"))])
        })
    }),
    ("access/make-in-anothers-directory", || {
        directory_of("d", 0o755, 0, 0)?;
        Ok(as_other(|| {
            words([
                see(fs::write("d/f", "x")),
                see(fs::create_dir("d/d")),
                see(std::os::unix::fs::symlink("x", "d/l")),
                see(crate::kit::fifo("d/p")),
            ])
        }))
    }),
    ("access/remove-from-anothers-directory", || {
        directory_of("d", 0o755, 0, 0)?;
        file_of("d/f", 0o666, OTHER, OTHER)?;
        Ok(as_other(|| words([see(fs::remove_file("d/f")), see(fs::rename("d/f", "d/g"))])))
    }),
    ("access/remove-anothers-file", || {
        directory_of("d", 0o755, OTHER, OTHER)?;
        file_of("d/f", 0o600, 0, 0)?;
        let removed = as_other(|| Ok(see(fs::remove_file("d/f"))));
        words([removed, there("d/f").to_owned()])
    }),
    ("access/sticky-keeps-anothers", || {
        directory_of("d", 0o1777, 0, 0)?;
        file_of("d/f", 0o666, OWNER, OWNER)?;
        Ok(as_other(|| words([see(fs::remove_file("d/f")), see(fs::rename("d/f", "d/g"))])))
    }),
    ("access/sticky-keeps-target-of-rename", || {
        directory_of("d", 0o1777, 0, 0)?;
        file_of("d/f", 0o666, OWNER, OWNER)?;
        file_of("d/mine", 0o666, OTHER, OTHER)?;
        Ok(as_other(|| Ok(see(fs::rename("d/mine", "d/f")))))
    }),
    ("access/sticky-frees-own", || {
        directory_of("d", 0o1777, 0, 0)?;
        file_of("d/f", 0o666, OWNER, OWNER)?;
        Ok(as_owner(|| words([see(fs::rename("d/f", "d/g")), see(fs::remove_file("d/g"))])))
    }),
    ("access/sticky-frees-owner-of-directory", || {
        directory_of("d", 0o1777, OTHER, OTHER)?;
        file_of("d/f", 0o600, OWNER, OWNER)?;
        Ok(as_other(|| Ok(see(fs::remove_file("d/f")))))
    }),
    ("access/sticky-keeps-anothers-directory", || {
        directory_of("d", 0o1777, 0, 0)?;
        directory_of("d/e", 0o777, OWNER, OWNER)?;
        Ok(as_other(|| Ok(see(fs::remove_dir("d/e")))))
    }),
    ("access/move-anothers-directory", || {
        // Its `..` changes, so it has to be writable itself.
        directory_of("a", 0o777, 0, 0)?;
        directory_of("b", 0o777, 0, 0)?;
        directory_of("a/d", 0o755, OWNER, OWNER)?;
        Ok(as_other(|| words([see(fs::rename("a/d", "b/d")), see(fs::rename("a/d", "a/e"))])))
    }),
    ("access/asked-for-root", || {
        file_of("f", 0o600, OWNER, OWNER)?;
        file_of("x", 0o100, OWNER, OWNER)?;
        let ask = |name: &str, what| see(accessat(CWD, name, what, AtFlags::empty()));
        words([
            ask("f", Access::READ_OK | Access::WRITE_OK),
            ask("f", Access::EXEC_OK),
            ask("x", Access::EXEC_OK),
            ask("none", Access::EXISTS),
        ])
    }),
    ("access/asked-for-others", || {
        file_of("f", 0o604, OWNER, OWNER)?;
        Ok(as_other(|| {
            let ask = |what| see(accessat(CWD, "f", what, AtFlags::empty()));
            words([ask(Access::READ_OK), ask(Access::WRITE_OK), ask(Access::EXEC_OK)])
        }))
    }),
    ("access/revoked-while-open", || {
        file_of("f", 0o644, OTHER, OTHER)?;
        let file = open("f", OFlags::RDWR)?;
        crate::kit::chmod("f", 0)?;
        Ok(as_other(|| {
            use std::os::unix::fs::FileExt;
            words([see(file.write_at(b"y", 0)), see(file.read_at(&mut [0], 0)), reads("f")])
        }))
    }),
    ("access/no-atime-of-anothers", || {
        file_of("f", 0o666, OWNER, OWNER)?;
        let ask = || Ok(see(open("f", OFlags::RDONLY | OFlags::NOATIME)));
        words([as_owner(ask), as_other(ask)])
    }),
    ("access/link-to-anothers", || {
        directory_of("d", 0o777, 0, 0)?;
        file_of("f", 0o600, OWNER, OWNER)?;
        Ok(as_other(|| Ok(see(fs::hard_link("f", "d/l")))))
    }),
];
