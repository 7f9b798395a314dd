//! `husk debug`.

use husk_tests::fixture::Husk;

/// A pod whose container runs `sleep 1234`, and another one with an image of its own.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: foo}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - {name: app, image: busybox, command: [sleep, '1234']}
    - {name: other, image: busybox, command: [sleep, '5678']}
    - {name: short, image: busybox, command: ['true']}
";

#[test]
fn a_temporary_container_looks_into_a_running_one() {
    let husk = Husk::new();
    husk.ok(&["run", "-d", "--name", "web", "-u", "7:8", "busybox", "sleep", "1234"]);
    let script = "ps -o pid,user,args; cat /proc/1/root/etc/group | head -1; echo seen >/proc/1/root/tmp/seen";
    let seen = husk.ok(&["debug", "web", "--", "sh", "-c", script]);
    assert!(seen.lines().any(|line| line.split_whitespace().eq(["1", "7", "sleep", "1234"])), "{seen}");
    assert!(seen.contains("root:"), "{seen}");
    assert_eq!(husk.sh("web", "cat /tmp/seen"), "seen");
    // It has files of its own and the pod's network and host name, and leaves nothing.
    let own =
        husk.ok(&["debug", "-e", "A=b", "--name", "looker", "web", "--", "sh", "-c", "ls /tmp; echo $A; hostname"]);
    assert_eq!(own, format!("b\n{}", husk.sh("web", "hostname")));
    assert_eq!(husk.ok(&["ps", "-a", "-q"]).lines().count(), 1);
    // Input goes in, the exit code comes out.
    assert_eq!(
        husk.run_with_input(&["debug", "-i", "web", "--", "sh", "-c", "cat; exit 7"], "words").exits(7).text(),
        "words"
    );
    let _ = husk.run(&["debug", "web", "--", "no-such-command"]).exits(127);
    let mut terminal = husk.at_terminal(&["debug", "-it", "web"]);
    terminal.types("echo $((6 * 7)); exit 3\n");
    terminal.shows("42");
    assert_eq!(terminal.ends(), 3);

    // It goes with the processes that it looks at, and does not keep their pod.
    let looking = husk.start(&["debug", "web", "--", "sh", "-c", "echo here; sleep 1000"]);
    looking.wait_for_stdout("here");
    husk.ok(&["kill", "web"]);
    let _ = looking.finish().exits(137);
    assert_eq!(husk.wait_for_exit("web").exit_code(), 137);
    husk.run(&["debug", "web"]).fails_saying(&["web", "`husk ps` shows"]);
    husk.run(&["debug", "nobody"]).fails_saying(&["no container or pod \"nobody\""]);
    husk.ok(&["rm", "web"]);
}

#[test]
fn a_pod_is_looked_into_by_a_target() {
    let husk = Husk::new();
    let manifest = husk.play_text(POD);
    assert_eq!(husk.wait_for_exit("foo-short").exit_code(), 0);
    let processes = |arguments: &[&str]| husk.ok(&[arguments, &["--", "ps", "-o", "args"]].concat());
    let alone = processes(&["debug", "foo"]);
    assert!(!alone.contains("sleep"), "{alone}");
    for target in ["app", "foo-app"] {
        let seen = processes(&["debug", "--target", target, "foo"]);
        assert!(seen.contains("sleep 1234") && !seen.contains("sleep 5678"), "{seen}");
    }
    assert!(processes(&["debug", "foo-other"]).contains("sleep 5678"));
    husk.run(&["debug", "--target", "nobody", "foo"]).fails_saying(&["nobody", "app, other, short"]);
    husk.run(&["debug", "--target", "short", "foo"]).fails_saying(&["foo-short", "not running but exited"]);
    husk.down(&manifest);
}
