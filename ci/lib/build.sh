# shellcheck shell=bash
# Building Husk: the host binaries, the guest agent in its initramfs, and the prefix that holds them as a package
# would install them. Sourced after common.sh.

# target_dir: where cargo builds; outside the checkout, so that every checkout shares it.
target_dir() {
    if [[ -n ${CARGO_TARGET_DIR:-} ]]; then
        printf '%s\n' "$CARGO_TARGET_DIR"
    else
        cache_dir target
    fi
}

# need_rust: a clear word when there is no usable cargo. Debian 12's own is too old for this workspace. To be called
# before the first build.
need_rust() {
    need_packages gcc libc6-dev
    command -v cargo >/dev/null ||
        die "no cargo on PATH: install Rust $(rust_version) or newer with rustup (https://rustup.rs), then run this again"
    claim_target
}

# claim_target: have our own crates built anew when it was another checkout that built last. Cargo compares dates: what
# the other one built passes for ours when our files are older, whatever is in them. Other people's crates stay.
claim_target() {
    local target mark
    target=$(target_dir)
    mark=$target/checkout
    if [[ ! -e $mark || $(<"$mark") != "$HUSK_SOURCE" ]]; then
        mkdir -p "$target"
        rm -rf "$target"/{,agent/}{*,*/*}/.fingerprint/husk-*
        printf '%s\n' "$HUSK_SOURCE" >"$mark"
    fi
}

# rust_version: the oldest compiler that the workspace accepts.
rust_version() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' "$HUSK_SOURCE/Cargo.toml"
}

# build_host: husk, huskd, the shim and the VMM.
build_host() {
    cargo build --locked --release --manifest-path "$HUSK_SOURCE/Cargo.toml" --target-dir "$(target_dir)" \
        -p husk-cli -p husk-cri -p husk-shim -p husk-vmm
}

# build_static PACKAGE: a program for the guest, static and small. A target directory of its own: its flags differ from
# the host's.
build_static() {
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile agent \
        --target x86_64-unknown-linux-gnu --manifest-path "$HUSK_SOURCE/Cargo.toml" \
        --target-dir "$(target_dir)/agent" -p "$1"
}

# static_dir: where build_static puts its result.
static_dir() {
    printf '%s/agent/x86_64-unknown-linux-gnu/agent\n' "$(target_dir)"
}

# build_behaviour: the program of tests/fs-behaviour, static, since it runs in an image without a C library.
build_behaviour() {
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target x86_64-unknown-linux-gnu \
        --manifest-path "$HUSK_SOURCE/Cargo.toml" --target-dir "$(target_dir)/agent" -p husk-fs-behaviour
    strip -o "$(behaviour_program)" "$(target_dir)/agent/x86_64-unknown-linux-gnu/release/husk-fs-behaviour"
}

# behaviour_program: where build_behaviour puts its result.
behaviour_program() {
    printf '%s/husk-fs-behaviour\n' "$(target_dir)"
}

# pack_initramfs AGENT FILE: a newc archive that holds the agent as /init and nothing else; the same bytes every time.
pack_initramfs() {
    local tree
    tree=$(mktemp -d)
    install -m 0755 "$1" "$tree/init"
    touch -d @0 "$tree/init"
    (cd "$tree" && printf 'init\n' | cpio --quiet --reproducible --owner=0:0 -o -H newc) >"$2.new"
    rm -r "$tree"
    mv "$2.new" "$2"
}

# build_prefix: everything, laid out as a package would install it; prints nothing, see prefix_dir.
build_prefix() {
    local prefix target kernel
    prefix=$(prefix_dir) target=$(target_dir)
    need_packages cpio e2fsprogs
    need_rust
    phase 'build the host binaries' build_host
    phase 'build the guest agent' build_static husk-agent
    kernel=$(build_kernel)
    mkdir -p "$prefix/bin" "$prefix/lib/husk"
    install -m 0755 "$target/release/husk" "$target/release/huskd" "$target/release/containerd-shim-husk-v2" \
        "$target/release/husk-vmm" "$prefix/bin"
    install -m 0644 "$kernel" "$prefix/lib/husk/vmlinux"
    pack_initramfs "$(static_dir)/husk-agent" "$prefix/lib/husk/initramfs.cpio"
}

# prefix_dir: where build_prefix puts its result.
prefix_dir() {
    printf '%s/prefix\n' "$(target_dir)"
}
