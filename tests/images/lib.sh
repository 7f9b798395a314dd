# shellcheck shell=bash
# What the builders of test images share: layers from Debian packages and from files of ours, layouts of them, and a
# registry filled with these. Sourced after ci/lib/common.sh and build.sh; everything happens below the directory $work.
# Names, dates and owners never come from the machine: the same input gives the same bytes.

readonly image_packages=(ca-certificates curl docker-registry mmdebstrap python3 skopeo tar)
# The sources that write layers and layouts, relative to tests/: part of every cache key.
readonly image_sources=(images/lib.sh images/rootfs src/bin/make-image.rs src/layer.rs src/oci.rs src/torture.rs)

work=
registry_pid=
clean_up() {
    [[ -z $registry_pid ]] || kill "$registry_pid" 2>/dev/null || :
    [[ -z $work ]] || rm -rf "$work"
}
trap clean_up EXIT

# begin_images TARGET: an empty $work beside TARGET, and the program that writes layouts.
begin_images() {
    need_rust
    phase "building make-image" cargo build --quiet --locked --release --target-dir "$(target_dir)" \
        --manifest-path "$HUSK_SOURCE/tests/Cargo.toml" --bin make-image
    make_image=$(target_dir)/release/make-image
    # Not before the build: crates of C code are compiled anew whenever this variable comes or goes.
    export SOURCE_DATE_EPOCH=1700000000
    work=$(mktemp -d "$1.XXXXXX")
    mkdir "$work"/{layers,rootfs,oci,registry}
}

# images_key PATH...: a hash of these files and directories below tests/ and of what all builders share.
images_key() {
    (cd "$HUSK_SOURCE/tests" && find "$@" "${image_sources[@]}" -type f -print0 | sort -zu | xargs -0 sha256sum |
        sha256sum | cut -c1-16)
}

# sources: the Debian archives that apt uses here, in sources.list form. Keys are found by mmdebstrap.
sources() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        sort -u >"$work/sources.list"
    [[ -s $work/sources.list ]] || die "apt knows no Debian archive; run apt-get update"
}

# debian_tar NAME VARIANT PACKAGES [OPTION...]: layers/NAME.tar with the packages and what they depend on.
debian_tar() {
    local name=$1 variant=$2 packages=$3
    shift 3
    local exclude=() path
    for path in /usr/share/{doc,man,locale,info,lintian,bash-completion}/'*' '/usr/lib/x86_64-linux-gnu/gconv/*'; do
        exclude+=("--dpkgopt=path-exclude=$path")
    done
    mmdebstrap --quiet --variant="$variant" --include="$packages" "${exclude[@]}" "$@" \
        '' "$work/layers/$name.tar" - <"$work/sources.list" 2>"$work/$name.log" || {
        cat "$work/$name.log" >&2
        die "mmdebstrap could not make the $name layer; its messages are above"
    }
}

# pack DIR NAME: layers/NAME.tar from a directory, the same bytes whoever checked it out.
pack() {
    tar -C "$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --format=gnu -cf "$work/layers/$2.tar" .
}

# own NAME: the layer of what rootfs/NAME holds.
own() {
    chmod -R u=rwX,go=rX "$work/rootfs/$1"
    pack "$work/rootfs/$1" "$1"
}

# busybox_layer PROGRAM: the layer `base`: the directories of a root, rootfs/base, and that busybox under all its names.
busybox_layer() {
    local program=$1 root=$work/rootfs/base applet
    mkdir -p "$root"/{bin,dev,home,proc,root,sys,tmp,usr/bin,usr/sbin,run,var/log,var/www}
    cp "$program" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln "$root/bin/busybox" "$root/bin/$applet"
    done
    ln -s /bin/env "$root/usr/bin/env"
    chmod -R u=rwX,go=rX "$root"
    chmod 1777 "$root/tmp"
    chmod 0700 "$root/root"
    pack "$root" base
}

# layout DIR NAME FLAGS... -- LAYER...: one layout in oci/DIR, and one line in the list of what to push as NAME.
layout() {
    local dir=$1 name=$2 flags=() layer layers=()
    shift 2
    while [[ $1 != -- ]]; do
        flags+=("$1")
        shift
    done
    shift
    for layer in "$@"; do
        layers+=(--layer "$work/layers/$layer.tar")
    done
    "$make_image" layout --out "$work/oci/$dir" --name "docker.io/$name" "${layers[@]}" \
        --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${flags[@]}"
    printf '%s %s\n' "$dir" "$name" >>"$work/images"
}

# fill_registry: push every image into a registry started for the purpose.
fill_registry() {
    local port dir name tries=0
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    until curl -sf -o /dev/null "http://127.0.0.1:$port/v2/"; do
        if ! kill -0 "$registry_pid" 2>/dev/null || ((++tries > 300)); then
            cat "$work/registry.log" >&2
            die "docker-registry did not start on port $port; its messages are above"
        fi
        sleep 0.1
    done
    while read -r dir name; do
        skopeo --insecure-policy copy --quiet --all --dest-tls-verify=false \
            "oci:$work/oci/$dir" "docker://127.0.0.1:$port/$name"
    done <"$work/images"
    kill "$registry_pid"
    wait "$registry_pid" 2>/dev/null || :
    registry_pid=
}

# finish_images TARGET PART...: these parts of $work become TARGET, whole or not at all.
finish_images() {
    local target=$1 part
    shift
    mkdir "$work/result"
    for part in "$@"; do
        mv "$work/$part" "$work/result/"
    done
    touch "$work/result/complete"
    mv -T "$work/result" "$target"
}
