//! `delete`: cleaning up when the daemon is not there to do it.

use std::env;
use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::Context;
use containerd_shim_protos::api::DeleteResponse;
use husk_client::{Dirs, to_timestamp};
use protobuf::Message;

use crate::args::Args;
use crate::bundle::{Bundle, Role};

/// Killed, as far as anybody can tell.
const EXIT_STATUS: u32 = 137;

/// Removes whatever the pod has on the host and prints containerd's `DeleteResponse`.
pub(crate) fn delete(args: &Args) -> anyhow::Result<()> {
    let bundle = args.bundle.clone().or_else(|| env::current_dir().ok());
    // The bundle may have been removed already; then the id is taken for a pod's, and if it is none there is nothing.
    let role = bundle.and_then(|bundle| Bundle::load(&bundle).ok()).map(|bundle| bundle.role);
    if !matches!(role, Some(Role::Container { .. })) {
        // A container has nothing on the host, and its pod may well be alive.
        let dirs = Dirs::from_env();
        let state = dirs.shim_state(&args.namespace, &args.id)?;
        let data = dirs.pod_data(&args.namespace, &args.id)?;
        husk_pod::teardown(&args.namespace, &args.id, &state, &data)?;
    }
    let response = DeleteResponse {
        exit_status: EXIT_STATUS,
        exited_at: Some(to_timestamp(SystemTime::now())).into(),
        ..DeleteResponse::default()
    };
    let bytes = response.write_to_bytes().context("encoding the answer")?;
    io::stdout().write_all(&bytes).context("printing the answer")
}
