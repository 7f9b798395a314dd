//! What confines a container: the filter of its system calls, what is hidden of /proc and /sys, its devices.

use husk_spec::defaults::{MASKED_PATHS, READ_ONLY_PATHS};
use oci_spec::runtime::{Capabilities, Linux, LinuxSeccomp};

use super::SpecError;
use crate::pods::plan::{ContainerPlan, SeccompPlan};

/// # Errors
///
/// For a profile that cannot be read.
pub(super) fn apply(linux: &mut Linux, plan: &ContainerPlan, bounding: &Capabilities) -> Result<(), SpecError> {
    linux.set_seccomp(seccomp(plan, bounding)?);
    let hidden = !plan.exposure.privileged && !plan.exposure.unmasked;
    // Said in any case: an absent list would be the crate's own.
    linux
        .set_masked_paths(hidden.then(|| MASKED_PATHS.map(str::to_owned).to_vec()))
        .set_readonly_paths(hidden.then(|| READ_ONLY_PATHS.map(str::to_owned).to_vec()));
    Ok(())
}

fn seccomp(plan: &ContainerPlan, bounding: &Capabilities) -> Result<Option<LinuxSeccomp>, SpecError> {
    let refused = |why: String| SpecError::Seccomp { container: plan.name.clone(), why };
    match &plan.seccomp {
        SeccompPlan::Unconfined => Ok(None),
        // Whoever may do everything is not told which calls to make; a profile of one's own holds.
        SeccompPlan::RuntimeDefault if plan.exposure.privileged => Ok(None),
        SeccompPlan::RuntimeDefault => Ok(Some(husk_seccomp::runtime_default(bounding))),
        SeccompPlan::Profile(text) => {
            husk_seccomp::from_file(text, bounding).map(Some).map_err(|error| refused(error.to_string()))
        }
        SeccompPlan::Localhost(name) => Err(refused(format!("{name} has not been read"))),
    }
}
