//! `husk logs`

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::logs::line::{Entry, Stream};
use crate::logs::reader::{LogReader, Selection};
use crate::pods::directory::{DirectoryError, PodDir};
use crate::pods::record::ContainerRecord;

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the container ends for good
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines; -1 for all
    #[arg(long, visible_short_alias = 'n', value_name = "LINES", allow_negative_numbers = true, default_value_t = -1)]
    tail: i64,
    /// Only what was written after this time: RFC 3339, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The time before each line
    #[arg(short, long)]
    timestamps: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let selection = Selection {
        tail: usize::try_from(args.tail).ok(),
        since: args.since.as_deref().map(|text| time(text, now)).transpose()?,
        until: args.until.as_deref().map(|text| time(text, now)).transpose()?,
    };
    let found = super::find_container(&engine, &args.container).await?;
    let dir = engine.pods.open(&found.pod.id);
    let path = dir.log(&found.container.short_name);
    if !path.exists() && found.container.state.started.is_some() {
        return Err(anyhow::anyhow!("container {} has no log: it runs in the foreground", args.container))
            .hint("what it writes goes to where it was started; `husk run -d` keeps a log");
    }
    let mut reader = LogReader::new(path.clone(), selection);
    let mut out = Output { timestamps: args.timestamps };
    let unreadable = || format!("cannot read {}", path.display());
    if !out.write(reader.existing().with_context(unreadable)?)? {
        return Ok(());
    }
    if args.follow {
        follow(&dir, &found.container.id, &mut reader, &mut out).await?;
    }
    out.write(reader.rest())?;
    Ok(())
}

/// Shows what is written until the container has ended for good, or nobody reads any more.
async fn follow(dir: &PodDir, id: &str, reader: &mut LogReader, out: &mut Output) -> anyhow::Result<()> {
    loop {
        // Asked before the log is read: what is written until then is read.
        let ended = match dir.record() {
            Ok(record) => {
                let ended = |c: &ContainerRecord| c.state.finished.is_some() && !c.state.is_active();
                record.phase.is_over() || record.container(id).is_none_or(ended)
            }
            Err(DirectoryError::Gone) => true,
            Err(error) => return Err(error.into()),
        };
        let entries = reader.further().context("cannot read the container's log")?;
        let quiet = entries.is_empty();
        if !out.write(entries)? || ended && quiet {
            return Ok(());
        }
        if quiet {
            sleep(POLL).await;
        }
    }
}

/// A time as RFC 3339, as seconds since 1970, or as a duration before `now` such as `1h30m`.
fn time(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).with_context(|| format!("\"{text}\" is no time"));
    }
    let before = text.parse::<SignedDuration>().ok().and_then(|d| now.checked_sub(d).ok());
    before.with_context(|| format!("\"{text}\" is no time: use 2026-11-20T12:00:00Z, or 10m for ten minutes ago"))
}

struct Output {
    timestamps: bool,
}

impl Output {
    /// Each entry to the stream that it came from; false when nobody reads any more.
    fn write(&mut self, entries: Vec<Entry>) -> anyhow::Result<bool> {
        for entry in entries {
            let mut bytes = Vec::with_capacity(entry.content.len().saturating_add(40));
            if self.timestamps {
                bytes.extend_from_slice(format!("{} ", entry.time).as_bytes());
            }
            bytes.extend_from_slice(&entry.content);
            if entry.whole {
                bytes.push(b'\n');
            }
            let written = match entry.stream {
                Stream::Stdout => put(&mut io::stdout().lock(), &bytes),
                Stream::Stderr => put(&mut io::stderr().lock(), &bytes),
            };
            match written {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                other => other?,
            }
        }
        Ok(true)
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_seconds_or_ages() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T11:00:00Z", "2026-11-20T11:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("10m", "2026-11-20T11:50:00Z"),
            ("1h30m", "2026-11-20T10:30:00Z"),
        ] {
            assert_eq!(time(text, now).unwrap().to_string(), expected, "{text}");
        }
        assert!(time("yesterday", now).is_err());
    }
}
