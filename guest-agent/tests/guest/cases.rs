//! The guest's side: boot like the agent, then the cases, each a sentence.

use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use husk_agent::agent::{Agent, Parts, monotonic_us};
use husk_agent::boot::ports::HostPorts;
use husk_agent::{boot, server, zygote};
use tokio::net::UnixListener;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, RPC, SLOTS, STDIO};

#[path = "containers.rs"]
mod containers;
#[path = "isolation.rs"]
mod isolation;
#[path = "pod.rs"]
mod pod;
#[path = "streams.rs"]
mod streams;

pub(crate) fn main() {
    let main_at_us = monotonic_us();
    boot::mount_file_systems().unwrap();
    let cgroups = boot::make_cgroups().unwrap();
    boot::raise_limits();
    husk_agent::sys::interface_up("lo").unwrap();
    // SAFETY: nothing has made a thread yet.
    let zygote = unsafe { zygote::fork() }.unwrap();
    let ports = HostPorts::default();
    let parts = Parts { zygote, pod_cgroup: cgroups.pod, ports, main_at_us };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (rpc, stdio) = (listen(RPC), listen(STDIO));
        let agent = Agent::start(parts).unwrap();
        tokio::spawn(server::serve(agent, rpc, stdio));
        SLOTS.set(find_slots()).unwrap();
        let client = Client::connect().await;
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap();
        let shared = cmdline.contains("husk.test=shared");
        pod::cases(&client, shared).await;
        if !shared {
            let before = leftovers();
            containers::cases(&client).await;
            streams::cases(&client).await;
            isolation::cases(&client).await;
            case("nothing of any container is left", async move { compare(before, leftovers()).await }).await;
        }
        println!("all cases run");
        pod::shut_down(&client).await;
    });
}

fn listen(path: &str) -> server::Incoming<tokio::net::UnixStream> {
    let listener = UnixListener::bind(path).unwrap();
    let (to, incoming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            if to.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}

/// Runs one case and prints how it went.
pub(crate) async fn case(sentence: &str, body: impl Future<Output = ()> + Send + 'static) {
    let limited = tokio::time::timeout(std::time::Duration::from_secs(90), body);
    match tokio::spawn(limited).await {
        Ok(Ok(())) => println!("test guest {sentence} ... ok"),
        Ok(Err(_)) => println!("test guest {sentence} ... FAILED: it takes too long"),
        Err(error) => println!("test guest {sentence} ... FAILED: {error}"),
    }
}

/// QEMU fills the slots in an order of its own: tell the devices by what is on them, then take them away again, since
/// the cases plug them.
fn find_slots() -> [u32; 3] {
    let mut images = Vec::new();
    let mut scratch = None;
    for slot in 0..32_u32 {
        let name = format!("virtio-mmio.{slot}");
        let directory = Path::new("/sys/bus/platform/devices").join(&name);
        let Some(device) = directory.read_dir().ok().into_iter().flatten().flatten().find_map(|entry| {
            let block = entry.path().join("block");
            Some(block.read_dir().ok()?.next()?.ok()?.file_name())
        }) else {
            continue;
        };
        let disk = std::fs::File::open(Path::new("/dev").join(&device)).unwrap();
        let mut magic = [0; 4];
        disk.read_exact_at(&mut magic, 1024).unwrap();
        let size = std::fs::read_to_string(Path::new("/sys/class/block").join(&device).join("size")).unwrap();
        if u32::from_le_bytes(magic) == 0xe0f5_e1e2 {
            images.push((size.trim().parse::<u64>().unwrap(), slot));
        } else {
            scratch = Some(slot);
        }
        drop(disk);
        std::fs::write("/sys/bus/platform/drivers/virtio-mmio/unbind", &name).unwrap();
    }
    images.sort_unstable();
    [images[1].1, images[0].1, scratch.unwrap()]
}

/// What a container could leave behind in the guest: mounts, cgroups, descriptors, children.
fn leftovers() -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_to_string("/proc/self/mounts").unwrap().lines().map(|line| format!("mount {line}")).collect();
    let cgroups = std::fs::read_dir("/sys/fs/cgroup/pod").unwrap().flatten();
    all.extend(cgroups.filter(|e| e.file_type().unwrap().is_dir()).map(|e| format!("cgroup {:?}", e.file_name())));
    all.extend(std::fs::read_dir("/run/husk/scratch/containers").unwrap().flatten().map(|e| format!("layer {e:?}")));
    all.push(format!("descriptors {}", std::fs::read_dir("/proc/self/fd").unwrap().count()));
    all.push(format!("children {}", std::fs::read_to_string("/proc/1/task/1/children").unwrap_or_default()));
    all
}

async fn compare(before: Vec<String>, mut after: Vec<String>) {
    // Connections of the last cases may still be closing.
    for _ in 0..100 {
        if before == after {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        after = leftovers();
    }
    assert_eq!(before, after);
}
