//! `--security-opt` and `--privileged`.

use std::path::Path;

use super::Args;
use crate::error::Advise as _;
use crate::pods::plan::{Exposure, SeccompPlan};
use crate::seccomp;

/// What the flags ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: SeccompPlan,
    pub(super) exposure: Exposure,
}

const KNOWN: &str = "known are seccomp=unconfined, seccomp=FILE, no-new-privileges and unmask=ALL";
const NO_LSM: &str = "the guest kernel has no such security module; apparmor=unconfined and label=disable say so";

/// # Errors
///
/// For options that cannot be honoured, and profiles that cannot be read.
pub(super) fn of(args: &Args) -> anyhow::Result<Security> {
    let mut security = Security::default();
    security.exposure.privileged = args.privileged;
    for option in &args.security_opt {
        // Docker once took a colon.
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option.as_str(), ""));
        let unknown = || anyhow::anyhow!("--security-opt {option} is not supported");
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = SeccompPlan::Unconfined,
            ("seccomp", "") => return Err(unknown()).hint(KNOWN),
            ("seccomp", file) => security.seccomp = seccomp::read(Path::new(file))?,
            ("unmask", "ALL" | "all") | ("systempaths", "unconfined") => security.exposure.unmasked = true,
            // What is the case anyway.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label", _) => return Err(unknown()).hint(NO_LSM),
            _ => return Err(unknown()).hint(KNOWN),
        }
    }
    Ok(security)
}
