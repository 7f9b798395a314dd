#!/usr/bin/env python3
"""Lists what an OCI image layout holds, for comparison with what a container of it sees.

Usage: expected-listing.py LAYOUT

Reads the layers with Python's tarfile and applies whiteouts by the words of the image specification ("Image Layer
Filesystem Changeset"); shares nothing with Husk's own reader. Nothing is written to a file system, which might not
keep owners, devices or attributes.
"""

import json
import posixpath
import sys
import tarfile
from pathlib import Path

import listing

XATTR = "SCHILY.xattr."
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}
IMPLIED_DIRECTORY = {"kind": "directory", "mode": 0o755, "uid": 0, "gid": 0, "xattrs": {}, "facts": {}}


def raw(name):
    return name.encode("utf-8", "surrogateescape")


def inode(archive, member):
    """What one header says; hard links share one of these."""
    kind = KINDS[member.type]
    facts = {}
    if kind == "file":
        facts = {"size": member.size, "sha256": listing.sha256(archive.extractfile(member))}
    elif kind == "symlink":
        facts = {"target": listing.text(raw(member.linkname))}
    elif kind in ("char", "block"):
        facts = {"device": [member.devmajor, member.devminor]}
    if kind != "directory":
        facts["mtime"] = int(member.mtime)
    xattrs = {k[len(XATTR):]: raw(v) for k, v in member.pax_headers.items() if k.startswith(XATTR)}
    mode = 0 if kind == "symlink" else member.mode & 0o7777
    return {"kind": kind, "mode": mode, "uid": member.uid, "gid": member.gid, "xattrs": xattrs, "facts": facts}


def remove(tree, path):
    for name in [name for name in tree if name == path or name.startswith(path + b"/")]:
        del tree[name]


def apply(tree, archive):
    members = [(raw(posixpath.normpath(m.name)).lstrip(b"/"), m) for m in archive.getmembers()]
    # A whiteout removes what the layers below hold, never what its own layer adds.
    for path, _ in members:
        directory, name = posixpath.split(path)
        if name == b".wh..wh..opq":
            for below in [n for n in tree if n.startswith(directory + b"/")]:
                del tree[below]
        elif name.startswith(b".wh."):
            remove(tree, posixpath.join(directory, name[len(b".wh."):]))
    for path, member in members:
        if path == b"." or posixpath.basename(path).startswith(b".wh."):
            continue
        parent = posixpath.dirname(path)
        while parent:
            tree.setdefault(parent, dict(IMPLIED_DIRECTORY))
            parent = posixpath.dirname(parent)
        if member.islnk():
            new = tree[raw(posixpath.normpath(member.linkname)).lstrip(b"/")]
        else:
            new = inode(archive, member)
        if new["kind"] != "directory" or tree.get(path, new)["kind"] != "directory":
            remove(tree, path)
        tree[path] = new


def blob(layout, descriptor):
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def main(layout):
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    manifest = json.loads(blob(layout, top).read_text())
    tree = {}
    for layer in manifest["layers"]:
        with tarfile.open(blob(layout, layer), errors="surrogateescape") as archive:
            apply(tree, archive)
    names = {}
    for path, node in sorted(tree.items()):
        if node["kind"] != "directory":
            names.setdefault(id(node), []).append(path)
    for path, node in sorted(tree.items()):
        if any(path == owned or path.startswith(owned + b"/") for owned in listing.RUNTIME_OWNED):
            continue
        facts = dict(node["facts"])
        shared = names.get(id(node), [])
        if len(shared) > 1:
            facts |= {"links": len(shared), "first_name": listing.text(shared[0])}
        print(listing.line(path, node["kind"], node["mode"], node["uid"], node["gid"], node["xattrs"], **facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
