//! PID 1 of a Husk guest.

use husk_agent::agent::{Agent, Parts, monotonic_us};
use husk_agent::boot::ports::HostPorts;
use husk_agent::error::{Context as _, Result};
use husk_agent::{boot, error, info, server, zygote};

fn main() {
    let main_at_us = monotonic_us();
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        eprintln!("husk-agent is PID 1 of a Husk guest and of no use elsewhere");
        std::process::exit(2);
    }
    let mut ports = HostPorts::default();
    let result = run(main_at_us, &mut ports);
    match result {
        Ok(()) => error!("stopped serving"),
        Err(cause) => error!("{cause}"),
    }
    ports.exit(1);
}

/// Boots and serves. Returns only when the guest is of no use.
fn run(main_at_us: u64, ports: &mut HostPorts) -> Result<()> {
    boot::mount_file_systems()?;
    *ports = HostPorts::from_cmdline();
    let at_panic = *ports;
    std::panic::set_hook(Box::new(move |panic| {
        error!("{panic}");
        at_panic.exit(101);
    }));
    let cgroups = boot::make_cgroups()?;
    boot::raise_limits();
    husk_agent::sys::interface_up("lo").on("ioctl SIOCSIFFLAGS", "lo")?;
    // SAFETY: nothing has made a thread yet.
    let zygote = unsafe { zygote::fork() }?;
    let parts = Parts { zygote, pod_cgroup: cgroups.pod, ports: *ports, main_at_us };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()
        .on("epoll_create", "runtime")?
        .block_on(serve(parts))
}

async fn serve(parts: Parts) -> Result<()> {
    let ports = parts.ports;
    let rpc = server::listen(husk_agent_api::RPC_PORT)?;
    let stdio = server::listen(husk_agent_api::STDIO_PORT)?;
    let agent = Agent::start(parts)?;
    info!("listening {} us after boot", agent.listening_at_us);
    ports.ready();
    server::serve(agent, rpc, stdio).await
}
