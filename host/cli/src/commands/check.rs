//! `husk check`

use serde_json::json;

use crate::host;
use crate::network::survey;
use crate::output::{self, Format, table};
use crate::paths::Paths;

/// Tell whether this machine can run pods, by trying
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

struct Finding {
    what: &'static str,
    need: Need,
    /// What was found, or what is wrong and how to mend it.
    result: Result<String, String>,
}

/// What cannot be done without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing at all runs.
    Everything,
    /// Only pods with a network.
    Networks,
}

impl Finding {
    fn verdict(&self) -> &'static str {
        match (&self.result, self.need) {
            (Ok(_), _) => "ok",
            (Err(_), Need::Networks) => "warning",
            (Err(_), Need::Everything) => "FAIL",
        }
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<u8> {
    let findings = findings().await;
    let good = findings.iter().all(|f| f.result.is_ok() || f.need == Need::Networks);
    match args.format {
        Format::Table => {
            let rows = findings.iter().map(|f| {
                let (Ok(text) | Err(text)) = &f.result;
                [f.verdict().to_owned(), f.what.to_owned(), text.clone()]
            });
            output::print(&table::render(["", "WHAT", "FOUND"], rows))?;
        }
        Format::Json => {
            let list: Vec<_> = findings
                .iter()
                .map(|f| {
                    let (found, error) = (f.result.as_ref().ok(), f.result.as_ref().err());
                    let required = f.need == Need::Everything;
                    json!({ "What": f.what, "Required": required, "Ok": f.result.is_ok(), "Found": found, "Error": error })
                })
                .collect();
            output::json(&list)?;
        }
    }
    Ok(u8::from(!good))
}

async fn findings() -> Vec<Finding> {
    fn finding<T: Into<String>, E: ToString>(what: &'static str, result: Result<T, E>) -> Finding {
        Finding { what, need: Need::Everything, result: result.map(Into::into).map_err(|e| e.to_string()) }
    }
    let of_networks = |finding: Finding| Finding { need: Need::Networks, ..finding };
    let shown = |result: Result<std::path::PathBuf, host::HostError>| result.map(|path| path.display().to_string());
    let root = rustix::process::geteuid().is_root();
    vec![
        finding("root", root.then_some("yes").ok_or("husk needs root: run it with sudo")),
        finding("kvm", host::probe_kvm().await.map(|()| "a guest runs")),
        finding("cgroup v2", host::cgroups()),
        finding("vmm", shown(host::vmm())),
        finding("shim", shown(host::shim())),
        finding("guest kernel", shown(host::kernel())),
        finding("initramfs", shown(host::initramfs())),
        finding("mkfs.ext4", shown(host::program("mkfs.ext4", "e2fsprogs"))),
        finding("space", space().map_err(|e| format!("{e:#}"))),
        of_networks(finding("CNI plugins", survey::plugins().await)),
        of_networks(finding("iptables", shown(host::program("iptables", "iptables")))),
        of_networks(finding("tun", survey::tun())),
    ]
}

/// Free space where images and scratch disks go.
fn space() -> anyhow::Result<String> {
    const WANTED: u64 = 1 << 30;
    let root = Paths::from_env()?.root().to_owned();
    // It may not be there yet: then its nearest parent is where it will be.
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(&root);
    let stat = rustix::fs::statvfs(there)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} free below {}", output::human::size(free), there.display());
    anyhow::ensure!(free >= WANTED, "{text}: too little for images and scratch disks; set HUSK_ROOT to a larger disk");
    Ok(text)
}
