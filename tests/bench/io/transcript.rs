//! What the guest says: a line when a workload begins, and one when it has ended (`tests/bench-guest/src/phase.rs`).

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// For one line. A workload takes a few seconds in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last workload.
const LAST: &str = "net connect, 1 byte, close";
/// Of a broken run, for its error.
const TAIL: usize = 20;

/// One workload, done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phase {
    pub(super) name: String,
    /// By the guest's clock.
    pub(super) took: Duration,
    /// Of the monitor's processes.
    pub(super) cpu: Duration,
    pub(super) amount: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Bytes(u32),
    Operations(u32),
}

/// Follows the output of a run to its last workload; `cpu` tells the time that was used so far.
pub(super) fn follow(output: impl Read + Send + 'static, cpu: impl Fn() -> Result<Duration>) -> Result<Vec<Phase>> {
    let (tell, told) = mpsc::channel();
    // Ends with the output, which ends with the process.
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            if tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let (mut phases, mut began, mut said) = (Vec::new(), Duration::ZERO, Vec::new());
    loop {
        let Ok(line) = told.recv_timeout(PATIENCE) else {
            let tail = said.get(said.len().saturating_sub(TAIL)..).unwrap_or_default();
            bail!("no more word from the guest after {} workloads; its last were {tail:#?}", phases.len());
        };
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            ["begin", _] => began = cpu()?,
            ["end", name, nanoseconds, count, unit] => {
                let used = cpu()?.saturating_sub(began);
                let amount = amount(count, unit).with_context(|| format!("reading {line:?}"))?;
                let took = Duration::from_nanos(nanoseconds.parse()?);
                phases.push(Phase { name: (*name).to_owned(), took, cpu: used, amount });
                if *name == LAST {
                    return Ok(phases);
                }
            }
            ["fail", error] => bail!("the guest: {error}"),
            _ => {}
        }
        said.push(line);
    }
}

fn amount(count: &str, unit: &str) -> Result<Amount> {
    let count = count.parse()?;
    match unit {
        "bytes" => Ok(Amount::Bytes(count)),
        "operations" => Ok(Amount::Operations(count)),
        _ => bail!("no unit: {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn cpu_time_is_that_between_begin_and_end() {
        let text = format!("noise\r\nbegin\t{LAST}\r\nend\t{LAST}\t5000\t100\toperations\r\n");
        let clock = Cell::new(0);
        let phases = follow(std::io::Cursor::new(text), || {
            clock.set(clock.get() + 7);
            Ok(Duration::from_secs(clock.get()))
        });
        let expected = Phase {
            name: LAST.to_owned(),
            took: Duration::from_micros(5),
            cpu: Duration::from_secs(7),
            amount: Amount::Operations(100),
        };
        assert_eq!(phases.unwrap(), [expected]);
    }

    #[test]
    fn the_guests_failure_is_told() {
        let error = follow(std::io::Cursor::new("fail\tno disk\n"), || Ok(Duration::ZERO)).unwrap_err();
        assert_eq!(error.to_string(), "the guest: no disk");
    }
}
