//! The agent as PID 1 of a real guest kernel, driven over its own protocol.
//!
//! This program is both sides. Run on the host it packs itself as the only file of an initramfs, makes two EROFS images
//! and a scratch disk, and boots QEMU's microvm machine with emulation (no KVM needed). As PID 1 of that guest it boots
//! exactly like the agent, serves on Unix sockets in place of vsock, which that machine does not have, and runs the
//! cases of `guest/cases.rs` through a gRPC client.
//!
//! Needs `HUSK_KERNEL` (the guest kernel), qemu-system-x86_64, mkfs.erofs, mkfs.ext4 and busybox-static, root to make
//! device nodes in an image, and a static build of itself:
//! `RUSTFLAGS="-C target-feature=+crt-static" cargo test --target x86_64-unknown-linux-gnu -p husk-agent --test guest`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code"
)]

#[path = "guest/cases.rs"]
mod cases;
#[path = "guest/client.rs"]
mod client;
#[path = "guest/host.rs"]
mod host;

fn main() {
    if std::process::id() == 1 {
        cases::main();
    } else {
        host::main();
    }
}
