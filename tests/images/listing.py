#!/usr/bin/env python3
"""Lists a file tree, one JSON line per path in byte order: all that an image says about a file.

Runs inside a container to list its root, and is imported by `expected-listing.py` for the same format.
"""

import hashlib
import json
import os
import stat
import sys

# What a runtime puts into every container, whatever the image says.
RUNTIME_OWNED = {b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"}
# Attributes that a container may not see, or that belong to the file system which shows the image.
HIDDEN_XATTRS = ("trusted.", "system.")


def text(raw):
    """Bytes as text that JSON can carry and that gives the same bytes back."""
    return raw.decode("utf-8", "backslashreplace")


def line(path, kind, mode, uid, gid, xattrs, **facts):
    visible = {k: v.hex() for k, v in sorted(xattrs.items()) if not k.startswith(HIDDEN_XATTRS)}
    entry = {"path": text(path), "kind": kind, "mode": f"{mode:04o}", "uid": uid, "gid": gid, **facts}
    if visible:
        entry["xattrs"] = visible
    return json.dumps(entry)


def sha256(file):
    return hashlib.file_digest(file, "sha256").hexdigest()


def mount_points():
    """Mounts below the root, relative to it."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        fields = [mount.split()[4] for mount in mounts]
    unescape = lambda f: f.decode("unicode_escape").encode("latin-1")
    return {unescape(f).lstrip(b"/") for f in fields}


def walk(root):
    skipped = RUNTIME_OWNED | (mount_points() if root == b"/" else set())
    pending, paths = [b""], []
    while pending:
        directory = pending.pop()
        for entry in os.scandir(os.path.join(root, directory)):
            path = os.path.join(directory, entry.name)
            if path in skipped:
                continue
            paths.append(path)
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
    return sorted(paths)


def entries(root):
    first_names = {}
    for path in walk(root):
        full = os.path.join(root, path)
        status = os.lstat(full)
        names = os.listxattr(full, follow_symlinks=False)
        xattrs = {name: os.getxattr(full, name, follow_symlinks=False) for name in names}
        facts = {}
        if stat.S_ISREG(status.st_mode):
            kind = "file"
            with open(full, "rb") as file:
                facts = {"size": status.st_size, "sha256": sha256(file)}
        elif stat.S_ISDIR(status.st_mode):
            kind = "directory"
        elif stat.S_ISLNK(status.st_mode):
            kind, facts = "symlink", {"target": text(os.readlink(full))}
        elif stat.S_ISFIFO(status.st_mode):
            kind = "fifo"
        else:
            kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
            facts = {"device": [os.major(status.st_rdev), os.minor(status.st_rdev)]}
        if kind != "directory":
            # Making mount points touches directories; their times say nothing about the image.
            facts["mtime"] = int(status.st_mtime)
            first = first_names.setdefault(status.st_ino, path)
            if status.st_nlink > 1:
                facts |= {"links": status.st_nlink, "first_name": text(first)}
        mode = 0 if kind == "symlink" else stat.S_IMODE(status.st_mode)
        yield line(path, kind, mode, status.st_uid, status.st_gid, xattrs, **facts)


if __name__ == "__main__":
    for entry in entries(os.fsencode(sys.argv[1] if len(sys.argv) > 1 else "/")):
        print(entry)
