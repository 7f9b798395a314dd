//! In-place resize (KEP-1287) as kubelet does it: on the way up the pod first and then the container, on the way down
//! the other way round.

use husk_cri::api::LinuxContainerResources;
use husk_tests::fixture::wait_until;

use super::node::Node;
use super::pod::{MIB, Pod, resources};

#[test]
fn a_pod_and_its_container_grow_and_shrink_while_they_run() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "resize");
    let sandbox = pod.run();
    let main = pod.start(&sandbox, &pod.container("main", 0, "sleep 100000"));
    let limit = || kubelet.sh(&main, "cat /sys/fs/cgroup/memory.max");
    let told = || kubelet.container(&main).unwrap().resources.unwrap().linux.unwrap();
    let vm = || kubelet.pod_info(&sandbox)["vm"]["memory_mib"].as_i64().expect("the VM's size");
    let before = (limit(), told(), vm());
    assert_eq!(before.0, (64 * MIB).to_string());

    kubelet.update_pod(&sandbox, resources(640)).unwrap();
    kubelet.update(&main, larger()).unwrap();
    assert_eq!(limit(), (512 * MIB).to_string());
    assert_eq!(kubelet.sh(&main, "cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max"), "150000");
    assert_eq!(told().memory_limit_in_bytes, 512 * MIB);
    assert_eq!((told().cpu_quota, told().cpu_shares), (150_000, 1536));
    wait_until("the VM to have grown", 10, || vm() >= before.2 + 500);

    kubelet.update(&main, resources(64)).unwrap();
    kubelet.update_pod(&sandbox, resources(128)).unwrap();
    assert_eq!((limit(), told()), (before.0, before.1));
    wait_until("the VM to have shrunk", 10, || vm() <= before.2);
    assert_eq!(kubelet.sh(&main, "echo fine"), "fine");

    kubelet.stop(&main, 0).unwrap();
    assert!(kubelet.update(&main, larger()).is_err(), "a container that has ended was resized");
    pod.collect(&sandbox);
}

fn larger() -> LinuxContainerResources {
    LinuxContainerResources { cpu_quota: 150_000, cpu_shares: 1536, ..resources(512) }
}
