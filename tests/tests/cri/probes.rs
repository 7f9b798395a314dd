//! exec probes (kubelet `pkg/kubelet/prober`): a command in the container, its exit code, and a time within which it has
//! to end.

use husk_tests::fixture::wait_until;
use tonic::Code;

use super::kubelet::is_not_found;
use super::node::Node;
use super::pod::Pod;

#[test]
fn a_probe_is_told_its_exit_code_and_one_that_hangs_is_ended() {
    let node = Node::start();
    let kubelet = &node.kubelet;
    let pod = Pod::prepare(&node, "probes");
    let sandbox = pod.run();
    let main = pod.start(&sandbox, &pod.container("main", 0, "sleep 100000"));

    for code in [0, 1, 42] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let said = kubelet.exec(&main, &["sh", "-c", &script], 60).unwrap();
        assert_eq!((said.exit_code, said.stdout, said.stderr), (code, b"out\n".to_vec(), b"err\n".to_vec()));
    }

    let hangs = ["sleep", "4712"];
    let late = kubelet.exec(&main, &hangs, 1).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(late.message().contains("timed out"), "{late}");
    wait_until("the end of the probe's process", 5, || {
        let processes = kubelet.sh(&main, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
        !processes.contains("sleep 4712")
    });
    assert_eq!(kubelet.sh(&main, "echo fine"), "fine");

    let absent = kubelet.exec(&main, &["/no/such/program"], 60);
    assert!(absent.is_err() || absent.is_ok_and(|said| said.exit_code != 0), "a program that is not there ran");
    is_not_found(kubelet.exec("none", &["true"], 1));
    kubelet.stop(&main, 0).unwrap();
    assert!(kubelet.exec(&main, &["true"], 1).is_err(), "there is no process in a container that has ended");
    pod.collect(&sandbox);
}
