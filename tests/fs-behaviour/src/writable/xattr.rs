//! Extended attributes, and what is kept in them.

use std::fs;

use rustix::fs::{XattrFlags, getxattr, lgetxattr, listxattr, lremovexattr, lsetxattr, removexattr, setxattr};

use crate::kit::{Check, OWNER, as_other, as_owner, chmod, directory_of, file, file_of};
use crate::text::{see, show, words};

fn set(name: &str, attribute: &str, value: &[u8]) -> String {
    see(setxattr(name, attribute, value, XattrFlags::empty()))
}

fn get(name: &str, attribute: &str) -> String {
    let mut room = vec![0; 1 << 16];
    show(getxattr(name, attribute, &mut room[..]).map(|length| String::from_utf8_lossy(&room[..length]).into_owned()))
}

/// Names, sorted; labels of a security module are the system's.
fn names(name: &str) -> String {
    let mut room = vec![0; 1 << 16];
    let found = listxattr(name, &mut room[..]).map(|length| {
        let text = String::from_utf8_lossy(&room[..length]).into_owned();
        let mut names: Vec<_> = text.split_terminator('\0').filter(|name| *name != "security.selinux").collect();
        names.sort_unstable();
        format!("[{}]", names.join(","))
    });
    show(found)
}

fn remove(name: &str, attribute: &str) -> String {
    see(removexattr(name, attribute))
}

/// An access list that gives user 2000 reading: version 2, then (tag, permissions, id) each.
fn access_list() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, permissions, id) in [(1_u16, 6_u16, none), (2, 4, 2000), (4, 0, none), (0x10, 4, none), (0x20, 0, none)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `cap_net_bind_service` permitted and effective (`struct vfs_cap_data`, revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) const CHECKS: &[Check] = &[
    ("xattr/set-get-list-remove", || {
        file("f")?;
        words([
            names("f"),
            set("f", "user.one", b"1"),
            set("f", "user.two", b"2"),
            get("f", "user.one"),
            names("f"),
            remove("f", "user.one"),
            names("f"),
        ])
    }),
    ("xattr/missing", || {
        file("f")?;
        words([get("f", "user.none"), remove("f", "user.none"), get("none", "user.x"), set("none", "user.x", b"")])
    }),
    ("xattr/of-a-directory", || {
        fs::create_dir("d")?;
        words([set("d", "user.x", b"x"), get("d", "user.x"), names("d")])
    }),
    ("xattr/of-a-link", || {
        std::os::unix::fs::symlink("none", "l")?;
        let mut room = [0; 10];
        words([
            see(lsetxattr("l", "user.x", b"x", XattrFlags::empty())),
            see(lgetxattr("l", "user.x", &mut room[..])),
            see(lremovexattr("l", "user.x")),
        ])
    }),
    ("xattr/of-a-fifo", || {
        crate::kit::fifo("p")?;
        words([set("p", "user.x", b"x"), names("p")])
    }),
    ("xattr/create-and-replace", || {
        file("f")?;
        let how = |flags| see(setxattr("f", "user.x", b"x", flags));
        words([
            how(XattrFlags::REPLACE),
            how(XattrFlags::CREATE),
            how(XattrFlags::CREATE),
            how(XattrFlags::REPLACE),
            how(XattrFlags::CREATE | XattrFlags::REPLACE),
        ])
    }),
    ("xattr/little-room", || {
        file("f")?;
        set("f", "user.x", b"0123456789");
        words([
            show(getxattr("f", "user.x", &mut [0; 0][..])),
            show(getxattr("f", "user.x", &mut [0; 5][..])),
            show(getxattr("f", "user.x", &mut [0; 10][..])),
            show(listxattr("f", &mut [0; 3][..])),
        ])
    }),
    ("xattr/empty-and-binary", || {
        file("f")?;
        words([
            set("f", "user.e", b""),
            get("f", "user.e"),
            set("f", "user.b", b"\0\xff"),
            get("f", "user.b").len().to_string(),
        ])
    }),
    ("xattr/long-names", || {
        file("f")?;
        let name = |length: usize| format!("user.{}", "n".repeat(length - 5));
        words([set("f", &name(255), b"x"), get("f", &name(255)), set("f", &name(256), b"x"), set("f", "user.", b"x")])
    }),
    ("xattr/values-of-kibibytes", || {
        file("f")?;
        words([
            set("f", "user.x", &[b'v'; 2000]),
            get("f", "user.x").len().to_string(),
            set("f", "user.x", &[b'v'; 65_537]),
            get("f", "user.x").len().to_string(),
        ])
    }),
    ("xattr/value-of-64-kibibytes", || {
        file("f")?;
        Ok(set("f", "user.x", &[b'v'; 65_536]))
    }),
    ("xattr/many", || {
        file("f")?;
        let done = (0..50).filter(|n| set("f", &format!("user.n{n}"), b"value") == "ok").count();
        words([done.to_string(), names("f").split(',').count().to_string()])
    }),
    ("xattr/kept-by-rename-and-link", || {
        file("f")?;
        set("f", "user.x", b"kept");
        fs::rename("f", "g")?;
        fs::hard_link("g", "h")?;
        words([get("g", "user.x"), get("h", "user.x")])
    }),
    ("xattr/permissions", || {
        file_of("f", 0o600, OWNER, OWNER)?;
        let owner = as_owner(|| words([set("f", "user.x", b"x"), get("f", "user.x")]));
        let other = as_other(|| words([set("f", "user.x", b"x"), get("f", "user.x"), remove("f", "user.x")]));
        words([owner, other])
    }),
    ("xattr/read-only-to-its-owner", || {
        file_of("f", 0o400, OWNER, OWNER)?;
        Ok(as_owner(|| Ok(set("f", "user.x", b"x"))))
    }),
    ("xattr/sticky-directory", || {
        directory_of("d", 0o1777, OWNER, OWNER)?;
        Ok(as_other(|| Ok(set("d", "user.x", b"x"))))
    }),
    ("xattr/trusted-by-a-user", || {
        file_of("f", 0o600, OWNER, OWNER)?;
        Ok(as_owner(|| words([set("f", "trusted.x", b"x"), get("f", "trusted.x")])))
    }),
    ("xattr/trusted-by-root", || {
        file("f")?;
        words([set("f", "trusted.x", b"x"), get("f", "trusted.x"), names("f")])
    }),
    ("xattr/security-by-root", || {
        file("f")?;
        words([set("f", "security.x", b"x"), get("f", "security.x")])
    }),
    ("xattr/unknown-namespace", || {
        file("f")?;
        words([set("f", "other.x", b"x"), set("f", "x", b"x"), get("f", "other.x"), set("f", "system.x", b"x")])
    }),
    ("capability/set-and-get", || {
        file("f")?;
        words([
            set("f", "security.capability", &CAPABILITY),
            names("f"),
            get("f", "security.capability").len().to_string(),
        ])
    }),
    ("capability/by-a-user", || {
        file_of("f", 0o700, OWNER, OWNER)?;
        Ok(as_owner(|| Ok(set("f", "security.capability", &CAPABILITY))))
    }),
    ("capability/lost-by-writing", || {
        file_of("f", 0o777, OWNER, OWNER)?;
        set("f", "security.capability", &CAPABILITY);
        let wrote = as_other(|| Ok(see(fs::write("f", "changed"))));
        words([wrote, names("f")])
    }),
    ("capability/lost-by-chown", || {
        file("f")?;
        set("f", "security.capability", &CAPABILITY);
        std::os::unix::fs::chown("f", Some(OWNER), None)?;
        Ok(names("f"))
    }),
    ("capability/nonsense", || {
        file("f")?;
        Ok(set("f", "security.capability", b"nonsense"))
    }),
    ("acl/set-and-get", || {
        file("f")?;
        let done = set("f", "system.posix_acl_access", &access_list());
        words([done, names("f"), crate::kit::mode("f")?])
    }),
    ("acl/lets-a-user-read", || {
        file("f")?;
        chmod("f", 0o600)?;
        set("f", "system.posix_acl_access", &access_list());
        Ok(as_other(|| Ok(crate::kit::read("f"))))
    }),
    ("acl/absent", || {
        file("f")?;
        Ok(get("f", "system.posix_acl_access"))
    }),
];
