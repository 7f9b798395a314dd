//! `husk wait`

use std::time::Duration;

use tokio::time::sleep;

use crate::engine::Engine;
use crate::output;
use crate::pods::lookup::{self, Found, LookupError};
use crate::pods::observe;
use crate::pods::record::Status;

/// Wait until containers have ended for good and print their exit codes, in the order of their names here
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to wait for; given several times, any of them. Prints -1 for a container that has not ended
    #[arg(long, value_enum, default_values = ["stopped"])]
    condition: Vec<Condition>,
    /// Print -1 for names that there are not
    #[arg(long)]
    ignore: bool,
    /// Milliseconds between two looks, or with a unit: 250ms, 1s
    #[arg(short, long, default_value = "50", value_name = "TIME", value_parser = interval)]
    interval: Duration,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Condition {
    /// Ended for good.
    #[value(alias = "exited")]
    Stopped,
    /// Made, and not started yet.
    #[value(alias = "configured")]
    Created,
    Running,
    Paused,
    /// Running, and its readiness probe has succeeded, if it has one.
    #[value(alias = "healthy")]
    Ready,
}

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    for name in &args.containers {
        let code = match super::find_container(&engine, name).await {
            Ok(found) => wait(&engine, &args, found.container.id).await?,
            Err(error) if args.ignore && matches!(error.downcast_ref(), Some(LookupError::Unknown { .. })) => None,
            Err(error) => return Err(error),
        };
        output::print(&code.map_or_else(|| "-1".to_owned(), |code| code.to_string()))?;
    }
    Ok(())
}

/// The exit code, or `None` of a container that fulfils the condition alive.
async fn wait(engine: &Engine, args: &Args, id: String) -> anyhow::Result<Option<u32>> {
    // Of the last run that was seen: a container of `--rm` is gone as soon as it has ended.
    let mut last = None;
    let only_end = args.condition.iter().all(|condition| *condition == Condition::Stopped);
    loop {
        // By its id: a name could be given anew meanwhile.
        let found = match lookup::container(&observe::all(engine).await?, &id) {
            Err(LookupError::Unknown { .. }) if last.is_some() => return Ok(last),
            found => found?,
        };
        if let Some(condition) = args.condition.iter().find(|condition| condition.holds(&found)) {
            let code = found.container.state.exit_code.unwrap_or_default();
            return Ok((*condition == Condition::Stopped).then_some(code));
        }
        if found.container.state.status == Status::Exited {
            // There is nothing more to come.
            anyhow::bail!("container {} has ended", found.container.name);
        }
        if only_end
            && found.container.state.has_processes()
            && let Some(shim) = engine.connect(&found.pod.id).await?
        {
            last = shim.wait(&id, None).await.ok().map(|exit| exit.code).or(last);
        }
        // Whoever looks after it is about to say whether this was its last run.
        sleep(args.interval).await;
    }
}

impl Condition {
    fn holds(self, found: &Found) -> bool {
        let status = found.container.state.status;
        match self {
            Self::Stopped => status == Status::Exited,
            Self::Created => status == Status::Created,
            Self::Running => status == Status::Running,
            Self::Paused => status == Status::Paused,
            Self::Ready => found.container.is_ready(),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let bad = || "expected milliseconds, or a time such as 250ms or 1s".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let milliseconds = match text.get(digits.len()..).unwrap_or_default() {
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    milliseconds.filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_may_have_a_unit() {
        assert_eq!(interval("250"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("0").is_err() && interval("2h").is_err() && interval("").is_err());
    }
}
