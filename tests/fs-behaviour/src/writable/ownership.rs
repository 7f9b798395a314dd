//! Owners, modes, set-id bits and masks.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown, lchown, symlink};

use rustix::fs::OFlags;

use crate::kit::{
    Check, GROUP, OTHER, OWNER, as_other, as_owner, as_user, chmod, directory_of, elsewhere, file, file_of, mode, open,
    owner,
};
use crate::text::{see, words};

fn set_mask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

fn make(name: &str, mode: u32) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(name)
}

pub(crate) const CHECKS: &[Check] = &[
    ("mode/every-bit-is-kept", || {
        file("f")?;
        let kept = (0..0o10000_u32)
            .step_by(0o111)
            .filter(|bits| chmod("f", *bits).is_ok() && mode("f").is_ok_and(|seen| seen == format!("{bits:04o}")));
        Ok(kept.count().to_string())
    }),
    ("mode/directory-bits", || {
        fs::create_dir("d")?;
        chmod("d", 0o7751)?;
        mode("d")
    }),
    ("mode/change-by-owner", || {
        file_of("f", 0o644, OWNER, OWNER)?;
        words([as_owner(|| Ok(see(chmod("f", 0o4711)))), mode("f")?])
    }),
    ("mode/change-by-other", || {
        file_of("f", 0o666, OWNER, OWNER)?;
        words([as_other(|| Ok(see(chmod("f", 0o777)))), mode("f")?])
    }),
    ("mode/sticky-file-of-a-user", || {
        file_of("f", 0o644, OWNER, OWNER)?;
        words([as_owner(|| Ok(see(chmod("f", 0o1644)))), mode("f")?])
    }),
    ("mode/set-group-id-outside-group", || {
        file_of("f", 0o755, OWNER, GROUP)?;
        words([as_owner(|| Ok(see(chmod("f", 0o2755)))), mode("f")?])
    }),
    ("mode/set-group-id-inside-group", || {
        file_of("f", 0o755, OWNER, GROUP)?;
        words([as_user(OWNER, OWNER, &[GROUP], || Ok(see(chmod("f", 0o2755)))), mode("f")?])
    }),
    ("mode/made-with-set-user-id", || {
        make("f", 0o4755)?;
        mode("f")
    }),
    ("mode/made-with-set-ids-by-a-user", || {
        directory_of("d", 0o777, 0, 0)?;
        Ok(as_other(|| {
            make("d/f", 0o6755)?;
            mode("d/f")
        }))
    }),
    ("mode/made-unreadable-and-written", || {
        directory_of("d", 0o777, 0, 0)?;
        let made = as_other(|| Ok(see(make("d/f", 0o000)?.write_all(b"written"))));
        words([made, mode("d/f")?, crate::kit::read("d/f")])
    }),
    ("mode/made-under-a-mask", || {
        Ok(elsewhere(|| {
            set_mask(0o027);
            make("f", 0o666)?;
            fs::DirBuilder::new().mode(0o777).create("d")?;
            crate::kit::fifo("p")?;
            words([mode("f")?, mode("d")?, mode("p")?])
        }))
    }),
    ("mode/made-without-a-mask", || {
        Ok(elsewhere(|| {
            set_mask(0);
            make("f", 0o666)?;
            fs::DirBuilder::new().mode(0o1777).create("d")?;
            words([mode("f")?, mode("d")?])
        }))
    }),
    ("owner/of-what-a-user-makes", || {
        directory_of("d", 0o777, 0, 0)?;
        Ok(as_user(OTHER, GROUP, &[], || {
            make("d/f", 0o644)?;
            fs::create_dir("d/d")?;
            symlink("f", "d/l")?;
            crate::kit::fifo("d/p")?;
            words([owner("d/f")?, owner("d/d")?, owner("d/l")?, owner("d/p")?])
        }))
    }),
    ("owner/in-a-set-group-id-directory", || {
        directory_of("d", 0o2777, OWNER, GROUP)?;
        Ok(as_other(|| {
            make("d/f", 0o644)?;
            fs::create_dir("d/d")?;
            words([owner("d/f")?, owner("d/d")?, mode("d/f")?, mode("d/d")?])
        }))
    }),
    ("owner/set-group-id-file-in-such-a-directory", || {
        directory_of("d", 0o2777, OWNER, GROUP)?;
        let outside = as_other(|| {
            make("d/f", 0o2755)?;
            mode("d/f")
        });
        let inside = as_user(OTHER, OTHER, &[GROUP], || {
            make("d/g", 0o2755)?;
            mode("d/g")
        });
        words([outside, inside])
    }),
    ("owner/changed-by-root", || {
        file("f")?;
        chown("f", Some(OWNER), Some(GROUP))?;
        let both = owner("f")?;
        chown("f", None, Some(OTHER))?;
        words([both, owner("f")?])
    }),
    ("owner/given-away-by-owner", || {
        file_of("f", 0o644, OWNER, OWNER)?;
        Ok(as_owner(|| words([see(chown("f", Some(OTHER), None)), see(chown("f", Some(OWNER), None))])))
    }),
    ("owner/group-changed-by-owner", || {
        file_of("f", 0o644, OWNER, OWNER)?;
        let done = as_user(OWNER, OWNER, &[GROUP], || {
            words([see(chown("f", None, Some(GROUP))), see(chown("f", None, Some(OTHER)))])
        });
        words([done, owner("f")?])
    }),
    ("owner/large-ids", || {
        file("f")?;
        chown("f", Some(4_000_000_000), Some(4_294_967_294))?;
        owner("f")
    }),
    ("owner/of-a-link-itself", || {
        file("f")?;
        symlink("f", "l")?;
        lchown("l", Some(OWNER), Some(GROUP))?;
        words([owner("l")?, owner("f")?])
    }),
    ("owner/through-a-link", || {
        file("f")?;
        symlink("f", "l")?;
        chown("l", Some(OWNER), Some(GROUP))?;
        words([owner("l")?, owner("f")?])
    }),
    ("owner/through-a-descriptor", || {
        file("f")?;
        let open = open("f", OFlags::RDONLY)?;
        fs::rename("f", "g")?;
        fchown(&open, Some(OWNER), None)?;
        owner("g")
    }),
    ("set-id/cleared-by-chown-of-root", || {
        file_of("f", 0o6755, 0, 0)?;
        chown("f", Some(OWNER), None)?;
        mode("f")
    }),
    ("set-id/not-group-executable-and-chown", || {
        file_of("f", 0o6745, 0, 0)?;
        chown("f", Some(OWNER), None)?;
        mode("f")
    }),
    ("set-id/kept-by-chown-of-directory", || {
        directory_of("d", 0o6755, 0, 0)?;
        chown("d", Some(OWNER), Some(GROUP))?;
        mode("d")
    }),
    ("set-id/cleared-by-chgrp-of-owner", || {
        file_of("f", 0o6755, OWNER, OWNER)?;
        let done = as_user(OWNER, OWNER, &[GROUP], || Ok(see(chown("f", None, Some(GROUP)))));
        words([done, mode("f")?])
    }),
    ("set-id/cleared-by-a-users-write", || {
        file_of("f", 0o6777, OWNER, GROUP)?;
        let done = as_other(|| Ok(see(open("f", OFlags::WRONLY)?.write_all(b"y"))));
        words([done, mode("f")?])
    }),
    ("set-id/kept-by-roots-write", || {
        file_of("f", 0o6777, OWNER, GROUP)?;
        open("f", OFlags::WRONLY)?.write_all(b"y")?;
        mode("f")
    }),
    ("set-id/cleared-by-a-users-truncation", || {
        file_of("f", 0o6777, OWNER, GROUP)?;
        file_of("g", 0o6777, OWNER, GROUP)?;
        let done = as_other(|| {
            let opened = see(open("f", OFlags::WRONLY | OFlags::TRUNC));
            words([opened, see(open("g", OFlags::WRONLY)?.set_len(10))])
        });
        words([done, mode("f")?, mode("g")?])
    }),
    ("set-id/cleared-by-a-users-fallocate", || {
        file_of("f", 0o6777, OWNER, GROUP)?;
        let done = as_other(|| {
            let file = open("f", OFlags::WRONLY)?;
            Ok(see(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8192)))
        });
        words([done, mode("f")?])
    }),
];
