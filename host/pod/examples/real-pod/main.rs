//! Drives the engine alone, without shim and image store, through a real VM: `real-pod IMAGE.erofs [CHECK...]`.
//!
//! IMAGE needs a busybox at /bin/busybox with its applets. The VMM, kernel and initramfs are found by `HUSK_VMM`,
//! `HUSK_KERNEL` and `HUSK_INITRAMFS`. Needs root, `/dev/kvm` and cgroup v2, as in `ci/box`. Prints one line for each
//! check and the pod's boot timeline; the exit code is the number of failures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's program"
)]

mod checks;
mod pod;

use std::path::PathBuf;
use std::time::Instant;

use pod::Bench;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let image = PathBuf::from(arguments.next().expect("usage: real-pod IMAGE.erofs [CHECK...]"));
    let wanted: Vec<String> = arguments.collect();
    let mut failures = 0;
    for (name, check) in checks::all() {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begin = Instant::now();
        let bench = Bench::new(&image);
        let result = tokio::spawn(check(bench.clone())).await;
        let mut complaints = bench.finish().await;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => complaints.push(error.to_string()),
            Err(error) => complaints.push(error.to_string()),
        }
        let seconds = begin.elapsed().as_secs_f32();
        if complaints.is_empty() {
            println!("ok      {name} ({seconds:.1} s)");
        } else {
            failures += 1;
            println!("FAILED  {name} ({seconds:.1} s): {}", complaints.join("; "));
            println!("{}", bench.logs());
        }
    }
    std::process::exit(failures);
}
