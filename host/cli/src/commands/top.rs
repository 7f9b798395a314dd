//! `husk top`

use std::collections::BTreeMap;

use anyhow::Context as _;
use husk_client::ProcessInfo;
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::Advise as _;
use crate::output::{self, Format, human, table};

/// Show the processes of a running container
///
/// COLUMNS are any of: pid ppid hpid hppid user uid group gid state nice threads pcpu etime tty time rss vsz comm args.
/// Ids are the container's; hpid and hppid are those of the pod's VM. The container needs no ps.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    container: String,
    /// What to show of each [default: user pid ppid pcpu etime tty time args]
    #[arg(value_name = "COLUMNS")]
    columns: Vec<String>,
}

const DEFAULT: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];
/// Each with its heading, podman's where podman has the column.
const COLUMNS: [(&str, &str); 19] = [
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("hpid", "HPID"),
    ("hppid", "HPPID"),
    ("user", "USER"),
    ("uid", "UID"),
    ("group", "GROUP"),
    ("gid", "GID"),
    ("state", "STATE"),
    ("nice", "NI"),
    ("threads", "THREADS"),
    ("pcpu", "%CPU"),
    ("etime", "ELAPSED"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("rss", "RSS"),
    ("vsz", "VSZ"),
    ("comm", "COMMAND"),
    ("args", "COMMAND"),
];

pub(super) async fn run(engine: Engine, args: Args) -> anyhow::Result<()> {
    let columns = columns(&args.columns)?;
    let found = super::find_container(&engine, &args.container).await?;
    let state = &found.container.state;
    if !state.has_processes() {
        return Err(anyhow::anyhow!("container {} is not running but {}", args.container, state.status.as_str()))
            .hint("`husk ps` shows what runs");
    }
    let shim = engine.connect(&found.pod.id).await?.context("the container's pod is not running")?;
    let processes = shim.processes(&found.container.id).await?;
    let image = engine.store().ok().and_then(|store| store.running(&found.container.image_id).ok());
    let names = Names {
        pids: processes.iter().map(|p| (p.pid, p.container_pid)).collect(),
        user: &|id| image.as_ref().and_then(|image| image.user_name(id)),
        group: &|id| image.as_ref().and_then(|image| image.group_name(id)),
    };
    let rows = processes.iter().map(|p| columns.iter().map(|(name, _)| cell(p, name, &names)).collect::<Vec<_>>());
    if args.format == Format::Json {
        let objects = rows.map(|row| {
            let fields = columns.iter().zip(row).map(|((name, _), cell)| ((*name).to_owned(), Value::String(cell)));
            fields.collect::<Map<_, _>>()
        });
        return output::json(&objects.collect::<Vec<_>>());
    }
    output::print(&table::render_list(columns.iter().map(|(_, heading)| *heading), rows))
}

fn columns(wanted: &[String]) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    // As podman takes them: several words, or one with commas.
    let wanted: Vec<&str> = wanted.iter().flat_map(|word| word.split([',', ' '])).filter(|w| !w.is_empty()).collect();
    let wanted = if wanted.is_empty() { DEFAULT.to_vec() } else { wanted };
    let known = || COLUMNS.map(|(name, _)| name).join(" ");
    wanted
        .into_iter()
        .map(|word| {
            let found = COLUMNS.into_iter().find(|(name, _)| *name == word.to_ascii_lowercase());
            found.with_context(|| format!("\"{word}\" is no column of husk top: there are {}", known()))
        })
        .collect()
}

/// What numbers are called.
struct Names<'a> {
    /// From the guest's to the container's.
    pids: BTreeMap<u32, u32>,
    user: &'a dyn Fn(u32) -> Option<String>,
    group: &'a dyn Fn(u32) -> Option<String>,
}

fn cell(process: &ProcessInfo, column: &str, names: &Names<'_>) -> String {
    match column {
        "pid" => process.container_pid.to_string(),
        // The parent of the first process, and of what was started by exec, is not in the container.
        "ppid" => names.pids.get(&process.parent_pid).copied().unwrap_or_default().to_string(),
        "hpid" => process.pid.to_string(),
        "hppid" => process.parent_pid.to_string(),
        "user" => (names.user)(process.uid).unwrap_or_else(|| process.uid.to_string()),
        "uid" => process.uid.to_string(),
        "group" => (names.group)(process.gid).unwrap_or_else(|| process.gid.to_string()),
        "gid" => process.gid.to_string(),
        "state" => process.state.clone(),
        "nice" => process.nice.to_string(),
        "threads" => process.threads.to_string(),
        "pcpu" => human::per_cent(process.cpu_ms, process.elapsed_ms),
        "etime" => human::clock(process.elapsed_ms / 1000),
        "tty" if process.terminal.is_empty() => "?".to_owned(),
        "tty" => process.terminal.clone(),
        "time" => human::clock(process.cpu_ms / 1000),
        "rss" => (process.resident_bytes >> 10).to_string(),
        "vsz" => (process.virtual_bytes >> 10).to_string(),
        "args" if !process.command.is_empty() => process.command.clone(),
        // The kernel shows what has no arguments in brackets: a process that has ended.
        "args" => format!("[{}]", process.name),
        _ => process.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_words_or_one_with_commas() {
        let names = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|w| (*w).to_owned()).collect();
            columns(&words).map(|c| c.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), DEFAULT);
        assert_eq!(names(&["pid,user", "ARGS"]).unwrap(), ["pid", "user", "args"]);
        assert!(
            names(&["seccomp"]).unwrap_err().to_string().contains("\"seccomp\" is no column of husk top: there are")
        );
    }

    #[test]
    fn ids_are_the_containers() {
        let process = ProcessInfo { pid: 90, container_pid: 7, parent_pid: 80, uid: 0, ..ProcessInfo::default() };
        let names = Names { pids: [(90, 7), (80, 1)].into(), user: &|_| Some("root".into()), group: &|_| None };
        let shown =
            ["pid", "ppid", "hpid", "user", "group", "tty", "args"].map(|column| cell(&process, column, &names));
        assert_eq!(shown, ["7", "1", "90", "root", "0", "?", "[]"]);
    }
}
