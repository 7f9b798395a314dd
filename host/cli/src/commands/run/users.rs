//! `--userns`, `--uidmap` and `--gidmap`.

use anyhow::{Context as _, ensure};

use super::Args;
use crate::error::Advise as _;
use crate::pods::plan::{IdRange, UsersPlan};

/// `None`: the guest's own.
pub(super) fn all(args: &Args) -> anyhow::Result<Option<UsersPlan>> {
    let maps = !args.uidmap.is_empty() || !args.gidmap.is_empty();
    match args.userns.as_deref() {
        None if maps => {}
        None | Some("host") if !maps => return Ok(None),
        Some("auto") if !maps => return Ok(Some(UsersPlan::default())),
        Some("host" | "auto") => {
            return Err(anyhow::anyhow!("--userns says which ids there are, and so do --uidmap and --gidmap"))
                .hint("leave --userns away");
        }
        Some(other) => {
            return Err(anyhow::anyhow!("--userns {other} is not supported"))
                .hint("use auto, host, or --uidmap and --gidmap");
        }
        None => return Ok(None),
    }
    let list =
        |flag: &str, texts: &[String]| texts.iter().map(|text| range(flag, text)).collect::<anyhow::Result<Vec<_>>>();
    let (uids, gids) = (list("--uidmap", &args.uidmap)?, list("--gidmap", &args.gidmap)?);
    // As podman: where only one is given, it holds for both.
    Ok(Some(match (uids.is_empty(), gids.is_empty()) {
        (true, _) => UsersPlan { uids: gids.clone(), gids },
        (_, true) => UsersPlan { gids: uids.clone(), uids },
        _ => UsersPlan { uids, gids },
    }))
}

/// `CONTAINER:GUEST[:SIZE]`.
fn range(flag: &str, text: &str) -> anyhow::Result<IdRange> {
    let bad = || format!("{flag} {text}: expected CONTAINER:GUEST[:SIZE], as in 0:100000:65536");
    let numbers = text.split(':').map(str::parse).collect::<Result<Vec<u32>, _>>().with_context(bad)?;
    let (container, guest, size) = match numbers.as_slice() {
        [container, guest] => (*container, *guest, 1),
        [container, guest, size] => (*container, *guest, *size),
        _ => anyhow::bail!(bad()),
    };
    ensure!(size > 0, "{flag} {text}: it has no id");
    Ok(IdRange { container, guest, size })
}
