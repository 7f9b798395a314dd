//! Boots real VMs with the real binary. Needs `/dev/kvm` and, in `HUSK_KERNEL`, the guest kernel's path.
//!
//! The same executable is also the guest's init: packed into an initramfs with its shared libraries, it runs as PID 1
//! there. So there is nothing else to build, and both ends of a test stand side by side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;
mod files;
mod growth;
mod guest;
mod guest_files;
mod initramfs;
mod vmm;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if std::process::id() == 1 {
        guest::main();
        return;
    }
    let tests = cases::ALL.iter().chain(files::ALL).chain(growth::ALL).map(|(name, case)| {
        Trial::test(*name, move || {
            case();
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    // Every VM takes a CPU; more at a time only makes deadlines meet each other.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, tests.collect()).exit();
}
