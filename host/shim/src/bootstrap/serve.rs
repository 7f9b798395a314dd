//! `serve`: being the daemon of one pod.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use husk_client::Dirs;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use super::log;
use crate::args::Args;
use crate::events::Publisher;
use crate::stdio::Lifetime;
use crate::task::{Engine, Settings, services};

/// Requests are small and copying waits for others most of the time.
const THREADS: usize = 2;

/// Serves the pod until it is over.
pub(crate) fn serve(args: &Args) -> anyhow::Result<()> {
    let (started, started_at) = (Instant::now(), SystemTime::now());
    let listener = take_stdin()?;
    // A session of its own: neither a terminal's signals nor its end reach the pod. The one failure is to lead a
    // session already.
    let _ = rustix::process::setsid();
    log::init(args.bundle.as_deref(), args.debug);
    raise_files();
    if rustix::process::geteuid().is_root() {
        own_mounts().context("making a mount namespace of its own")?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(run(args, listener, started, started_at));
    // A write to a disk that hangs must not keep the shim.
    runtime.shutdown_background();
    done
}

async fn run(args: &Args, listener: UnixListener, started: Instant, started_at: SystemTime) -> anyhow::Result<()> {
    ignore_signals().context("taking signals")?;
    let events = env::var("TTRPC_ADDRESS").unwrap_or_default();
    let publisher = Publisher::start(&events, &args.namespace);
    // Whoever wants events is a daemon that may restart.
    let lifetime = if events.is_empty() { Lifetime::Once } else { Lifetime::Kept };
    let dirs = Dirs::from_env();
    let state = dirs.shim_state(&args.namespace, &args.id)?;
    let socket = dirs.task_socket(&args.namespace, &args.id)?;
    let engine = Engine::new(Settings {
        namespace: args.namespace.clone(),
        pod: args.id.clone(),
        dirs,
        lifetime,
        publisher,
        started,
        started_at,
    });
    let listener = tokio::net::UnixListener::from_std(listener).context("listening")?;
    let mut server = Server::new().add_listener(Listener::from(listener)).register_service(services(&engine));
    server.start().await.context("serving")?;
    tracing::info!("serving pod {} of namespace {}", args.id, args.namespace);

    engine.end_when_idle(socket);
    engine.over().await;
    // First the name, so that nobody finds a socket that is about to die.
    remove(&state);
    server.shutdown().await.context("ending the service")?;
    engine.flush_events().await;
    Ok(())
}

/// The socket that `start` left as standard input.
fn take_stdin() -> anyhow::Result<UnixListener> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("taking the socket from standard input")?;
    let listener = UnixListener::from(socket);
    if listener.local_addr().is_err() {
        bail!("standard input is not a socket: `serve` is run by `start` only");
    }
    let null = fs::File::open("/dev/null").context("opening /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("closing standard input")?;
    listener.set_nonblocking(true).context("setting the socket up")?;
    Ok(listener)
}

/// Streams, attached clients and connections to ports are descriptors, and the soft limit of a login is 1024.
fn raise_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files stays as it is: {errno}");
    }
}

/// Mounts made elsewhere arrive here; whatever were mounted here would stay here. Before any thread is started: the
/// namespace is a thread's.
fn own_mounts() -> io::Result<()> {
    // SAFETY: only the mount namespace changes, and with it the file system attributes of this one thread, which has
    // neither a library nor another thread relying on sharing them.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(Path::new("/"), MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(())
}

/// A shim outlives what would end another program; it ends with its pod. Handled rather than ignored, since what is
/// ignored would be ignored in the VMM and in loggers, too.
fn ignore_signals() -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::pipe()] {
        let mut signals = signal(kind)?;
        tokio::spawn(async move { while signals.recv().await.is_some() {} });
    }
    Ok(())
}

fn remove(state: &Path) {
    match fs::remove_dir_all(state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("removing {}: {error}", state.display());
        }
        _ => {}
    }
}
