//! What the driver of the benchmark reads: one line when a workload begins and one when it has ended, in between of
//! which it counts the CPU time of the monitor.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

/// Before and after a workload, while the driver takes its note.
const PAUSE: Duration = Duration::from_millis(100);

/// What a workload does more or less of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    Bytes(usize),
    Operations(usize),
}

/// Runs a workload and tells how long it took.
pub(crate) fn run(name: &str, amount: Amount, work: impl FnOnce() -> Result<()>) -> Result<()> {
    say(&format!("begin\t{name}"))?;
    std::thread::sleep(PAUSE);
    let began = Instant::now();
    work().with_context(|| name.to_owned())?;
    let took = began.elapsed().as_nanos();
    let (count, unit) = match amount {
        Amount::Bytes(count) => (count, "bytes"),
        Amount::Operations(count) => (count, "operations"),
    };
    say(&format!("end\t{name}\t{took}\t{count}\t{unit}"))?;
    std::thread::sleep(PAUSE);
    Ok(())
}

/// Tells why there is no more to come.
pub(crate) fn fail(error: &Error) {
    let _ = say(&format!("fail\t{error:#}"));
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
