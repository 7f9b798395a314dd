//! What a process of the host does in a window of time, by `/proc/PID/task` (proc(5)).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What all threads of a process did together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activity {
    /// Share of one CPU, 1 = all of it.
    pub(super) cpu: f64,
    /// Times a thread slept and was woken, per second.
    pub(super) wakeups: f64,
}

/// A process that is looked at again and again.
#[derive(Debug)]
pub(super) struct Watched {
    pid: u32,
    begun: Option<(Instant, Counters)>,
}

impl Watched {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, begun: None }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        self.begun = Some((Instant::now(), Counters::read(self.pid)?));
        Ok(())
    }

    /// What was done since [`Self::begin`].
    pub(super) fn end(&mut self) -> Result<Activity> {
        let (began, before) = self.begun.take().context("a window that was never begun")?;
        let after = Counters::read(self.pid)?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds;
        let switches = u32::try_from(after.switches.saturating_sub(before.switches))?;
        Ok(Activity { cpu, wakeups: f64::from(switches) / seconds })
    }
}

/// Sums over the threads.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    cpu: Duration,
    switches: u64,
}

impl Counters {
    fn read(pid: u32) -> Result<Self> {
        let mut sum = Self::default();
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
            let task = task?.path();
            let text = |file: &str| fs::read_to_string(task.join(file)).with_context(|| format!("reading {file}"));
            sum.cpu += Duration::from_nanos(first_number(&text("schedstat")?)?);
            let status = text("status")?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum.switches += first_number(line.context("no voluntary_ctxt_switches")?)?;
        }
        Ok(sum)
    }
}

fn first_number(text: &str) -> Result<u64> {
    let word = text.split_whitespace().next().context("an empty file")?;
    word.parse().with_context(|| format!("{word:?} is no number"))
}

/// The process with `part` in its command line that works in the directory `run`.
pub(super) fn named(run: &Path, part: &str) -> Result<u32> {
    let run = run.as_os_str().as_encoded_bytes();
    let holds = |text: &[u8], what: &[u8]| text.windows(what.len()).any(|window| window == what);
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        if holds(&command, part.as_bytes()) && (holds(&command, run) || holds(&read("environ"), run)) {
            return Ok(pid);
        }
    }
    bail!("there is no process {part} of this pod")
}
