//! `husk kube play` and `husk kube down`: the manifests of `pods/` do what their README says, and what a manifest asks
//! for is honoured or refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

use husk_tests::fixture::{Husk, find_object, manifest_file, wait_for, wait_until};
use serde_json::Value;

/// What `readlink /proc/self/ns/X` says in a container.
fn namespace(husk: &Husk, container: &str, kind: &str) -> String {
    husk.ok(&["exec", container, "readlink", &format!("/proc/self/ns/{kind}")])
}

#[test]
fn the_sidecar_fetches_the_app_through_localhost() {
    let husk = Husk::new();
    let foo = husk.play("foo-httpbin-sidecar.yaml");
    let script = "until curl -sf http://localhost/get; do sleep 1; done";
    let answer: Value = serde_json::from_str(&husk.sh("foo-sidecar", script)).unwrap();
    assert_eq!(answer.get("origin").and_then(Value::as_str), Some("127.0.0.1"));
    assert_eq!(answer.pointer("/headers/Host").and_then(Value::as_str), Some("localhost"));
    assert_eq!(husk.sh("foo-sidecar", "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/status/418"), "418");
    husk.down(&foo);
}

#[test]
fn containers_of_a_pod_share_network_ipc_and_host_name_and_nothing_else() {
    let husk = Husk::new();
    let foo = husk.play("foo-httpbin-sidecar.yaml");
    for kind in ["net", "uts", "ipc"] {
        assert_eq!(namespace(&husk, "foo-app", kind), namespace(&husk, "foo-sidecar", kind), "{kind}");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(namespace(&husk, "foo-app", kind), namespace(&husk, "foo-sidecar", kind), "{kind}");
    }
    assert_eq!(husk.ok(&["exec", "foo-app", "hostname"]), "foo");
    assert_eq!(husk.ok(&["exec", "foo-sidecar", "hostname"]), "foo");

    let processes = husk.ok(&["exec", "foo-sidecar", "ps", "-o", "pid,args"]);
    assert!(processes.contains("1 /bin/sleep 3650d"), "{processes}");
    assert!(!processes.contains("httpbin"), "{processes}");
    husk.sh("foo-app", "touch /only-in-app /dev/shm/in-both");
    assert_eq!(husk.sh("foo-sidecar", "ls /only-in-app /dev/shm/in-both 2>/dev/null || :"), "/dev/shm/in-both");
    husk.down(&foo);
}

#[test]
fn each_container_has_its_own_memory_limit() {
    let husk = Husk::new();
    let foo = husk.play("foo-httpbin-sidecar.yaml");
    assert_eq!(husk.ok(&["exec", "foo-app", "cat", "/sys/fs/cgroup/memory.max"]), "268435456");
    assert_eq!(husk.ok(&["exec", "foo-sidecar", "cat", "/sys/fs/cgroup/memory.max"]), "134217728");
    // The limit works, too: the exec is charged to its container, and only that container loses a process.
    husk.run(&["exec", "foo-sidecar", "tail", "/dev/zero"]).exits(137);
    husk.sh("foo-sidecar", "until curl -sf http://localhost/ip; do sleep 1; done");
    husk.down(&foo);
}

#[test]
fn a_pod_tells_how_it_booted() {
    let husk = Husk::new();
    let foo = husk.play("foo-httpbin-sidecar.yaml");
    let pod = husk.inspect("foo");
    let text = pod.to_string().to_lowercase();
    for step in ["vmm", "ready", "resumed"] {
        assert!(text.contains(step), "the boot timeline lacks {step}: {pod:#}");
    }
    husk.down(&foo);
}

#[test]
fn tomcat_serves_the_war_that_the_init_container_copied() {
    let husk = Husk::new();
    let pod = husk.play("javaweb-init.yaml");
    let init = husk.container("javaweb-2-war");
    assert_eq!((init.status().as_str(), init.exit_code()), ("exited", 0));
    husk.wait_for_log("javaweb-2-tomcat", "Server startup");
    let page = husk.sh("javaweb-2-tomcat", "wget -qO- http://localhost:8080/sample/");
    assert!(page.contains("Hello, World"), "{page}");
    // The same through the host's port.
    let page = wait_for("an answer at port 8001 of the host", 10, || {
        let answer = Command::new("curl").args(["-sf", "http://127.0.0.1:8001/sample/"]).output().ok()?;
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
    });
    assert!(page.contains("Hello, World"), "{page}");
    husk.down(&pod);
}

#[test]
fn nginx_serves_what_the_other_container_wrote_on_the_host() {
    let husk = Husk::new();
    let fresh = !std::path::Path::new("/data").exists();
    let pod = husk.play("two-containers.yaml");
    let writer = husk.wait_for_exit("two-containers-debian-container");
    assert_eq!((writer.exit_code(), writer.restarts()), (0, 0));
    assert_eq!(std::fs::read_to_string("/data/index.html").unwrap(), "Hello from the debian container\n");
    let page =
        husk.sh("two-containers-nginx-container", "until wget -qO- http://localhost/ 2>/dev/null; do sleep 1; done");
    assert_eq!(page, "Hello from the debian container");
    assert_eq!(husk.container("two-containers-nginx-container").status(), "running");
    husk.down(&pod);
    assert!(std::path::Path::new("/data/index.html").exists(), "what is the host's stays");
    if fresh {
        std::fs::remove_dir_all("/data").unwrap();
    }
}

#[test]
fn jmeter_runs_the_plan_of_the_init_container_to_its_end() {
    let husk = Husk::new();
    let pod = husk.play("jmeter-init.yaml");
    let log = husk.wait_for_log("jmeter-test-jmeter", "... end of run");
    assert!(log.contains("Created the tree successfully using /app/test.jmx"), "{log}");
    assert!(
        log.lines().any(|line| line.starts_with("summary =     10 in") && line.ends_with("Err:     0 (0.00%)")),
        "{log}"
    );
    let state = husk.wait_for_exit("jmeter-test-jmeter");
    assert_eq!((state.exit_code(), state.restarts()), (0, 0));
    husk.down(&pod);
}

#[test]
fn the_log_collector_forwards_what_the_app_writes() {
    let husk = Husk::new();
    let pod = husk.play("log-collector.yaml");
    let log = husk.wait_for_log("app-with-log-collector-log-collector", "line 3\n");
    assert!(log.starts_with("line 1\nline 2\nline 3\n"), "{log}");
    let write = husk.run(&["exec", "app-with-log-collector-log-collector", "touch", "/var/log/mine"]).exits(1);
    write.fails_saying(&["read-only"]);
    husk.down(&pod);
}

#[test]
fn containers_with_a_shared_process_namespace_see_and_signal_each_other() {
    let husk = Husk::new();
    let pod = husk.play("shared-pid.yaml");
    assert_eq!(namespace(&husk, "shared-pid-app", "pid"), namespace(&husk, "shared-pid-debug", "pid"));
    assert_ne!(namespace(&husk, "shared-pid-app", "mnt"), namespace(&husk, "shared-pid-debug", "mnt"));
    wait_until("nginx to start", 20, || {
        husk.ok(&["exec", "shared-pid-debug", "ps", "-o", "args"]).contains("nginx: worker process")
    });
    let processes = husk.ok(&["exec", "shared-pid-app", "ps", "-o", "args"]);
    assert!(processes.contains("sleep 3650d"), "{processes}");
    // Reload the other container's server by signal, as a debugging sidecar would.
    husk.sh(
        "shared-pid-debug",
        "kill -HUP $(ps -o pid,args | awk '$2 == \"nginx:\" && $3 == \"master\" { print $1 }')",
    );
    husk.wait_for_log("shared-pid-app", "signal 1 (SIGHUP) received");
    husk.down(&pod);
}

#[test]
fn the_pods_process_1_reaps_orphans() {
    let husk = Husk::new();
    let pod = husk.play("shared-pid.yaml");
    // The shell between ends at once, so that its child becomes an orphan.
    let orphan = husk.sh("shared-pid-debug", "sh -c 'sleep 2 >/dev/null 2>&1 & echo $!'");
    let parent = format!("awk '/^PPid/ {{ print $2 }}' /proc/{orphan}/status 2>/dev/null || echo gone");
    assert!(["1", "gone"].contains(&husk.sh("shared-pid-debug", &parent).as_str()));
    wait_until("the orphan to be reaped", 20, || {
        husk.sh("shared-pid-debug", &format!("[ -e /proc/{orphan} ] && echo there || echo gone")) == "gone"
    });
    husk.down(&pod);
}

#[test]
fn init_containers_run_in_order_each_to_its_end() {
    let husk = Husk::new();
    let pod = husk.play_text(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: ordered}
spec:
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
    - name: first
      image: busybox
      command: [sh, -c, "sleep 1; echo first >>/data/order"]
      volumeMounts: [{name: data, mountPath: /data}]
    - name: second
      image: busybox
      command: [sh, -c, "echo second >>/data/order"]
      volumeMounts: [{name: data, mountPath: /data}]
  containers:
    - name: app
      image: busybox
      command: [sh, -c, "echo app >>/data/order; sleep 1000"]
      volumeMounts: [{name: data, mountPath: /data}]
"#,
    );
    wait_until("the app to start", 10, || husk.sh("ordered-app", "cat /data/order") == "first\nsecond\napp");
    husk.down(&pod);
}

#[test]
fn a_failing_init_container_keeps_the_app_from_starting() {
    let husk = Husk::new();
    let manifest = manifest_file(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: unlucky}
spec:
  restartPolicy: Never
  initContainers:
    - {name: broken, image: busybox, command: [sh, -c, "echo the reason >&2; exit 3"]}
  containers:
    - {name: app, image: busybox, command: [sleep, "1000"]}
"#,
    );
    let output = husk.run(&["kube", "play", &manifest.to_string_lossy()]);
    output.fails_saying(&["broken", "3"]);
    // Whether the failed pod stays to be looked at or not, `down` clears it away.
    husk.down(&manifest);
}

/// A pod of one container that notes each of its runs in an emptyDir, and one that shows the notes.
fn restarting(name: &str, policy: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: {policy}
  volumes: [{{name: data, emptyDir: {{}}}}]
  containers:
    - name: app
      image: busybox
      command: [sh, -c, "echo run >>/data/runs; {script}"]
      volumeMounts: [{{name: data, mountPath: /data}}]
    - name: keeper
      image: busybox
      command: [sleep, "1000"]
      volumeMounts: [{{name: data, mountPath: /data}}]
"#
    )
}

#[test]
fn restart_policy_always_starts_even_what_ended_well() {
    let husk = Husk::new();
    let pod = husk.play_text(&restarting("always", "Always", "exit 0"));
    wait_until("a third run", 30, || husk.sh("always-keeper", "cat /data/runs").lines().count() >= 3);
    assert!(husk.container("always-app").restarts() >= 2);
    husk.down(&pod);
}

#[test]
fn restart_policy_on_failure_starts_until_it_ends_well() {
    let husk = Husk::new();
    let pod =
        husk.play_text(&restarting("on-failure", "OnFailure", "[ -e /data/once ] || { touch /data/once; exit 4; }"));
    let state = wait_for("an end that is a success", 30, || {
        let state = husk.container("on-failure-app");
        (state.status() == "exited" && state.exit_code() == 0).then_some(state)
    });
    assert_eq!(state.restarts(), 1);
    assert_eq!(husk.sh("on-failure-keeper", "cat /data/runs"), "run\nrun");
    husk.down(&pod);
}

#[test]
fn restart_policy_never_starts_nothing_again() {
    let husk = Husk::new();
    let pod = husk.play_text(&restarting("never", "Never", "exit 4"));
    let state = husk.wait_for_exit("never-app");
    assert_eq!((state.exit_code(), state.restarts()), (4, 0));
    assert_eq!(husk.sh("never-keeper", "sleep 3; cat /data/runs"), "run");
    husk.down(&pod);
}

#[test]
fn a_container_is_made_as_its_manifest_says() {
    let husk = Husk::new();
    let pod = husk.play_text(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: exact, namespace: shop, labels: {tier: web}}
spec:
  hostname: chosen
  volumes:
    - {name: fast, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: plain, emptyDir: {}}
  containers:
    - name: app
      image: husk-test/entrypoint
      command: [/bin/sh, -c]
      args: ["echo $(GREETING) $0 $1; echo $NAME; pwd; sleep 1000", zero, one]
      workingDir: /made/here
      env:
        - {name: WHO, value: world}
        - {name: GREETING, value: hello $(WHO)}
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      resources:
        limits: {cpu: 250m, memory: 64Mi}
      securityContext:
        runAsUser: 1000
        runAsGroup: 2000
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: fast, mountPath: /fast}
        - {name: plain, mountPath: /plain}
        - {name: plain, mountPath: /below, subPath: sub/dir, readOnly: true}
"#,
    );
    let log = husk.wait_for_log("exact-app", "/made/here");
    assert_eq!(log, "hello world zero one\nexact\n/made/here\n");
    let sh = |script: &str| husk.sh("exact-app", script);
    assert_eq!(sh("hostname; id -u; id -g"), "chosen\n1000\n2000");
    assert_eq!(sh("cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max"), "25000 100000\n67108864");
    assert_eq!(sh("awk '/NoNewPrivs|CapEff|CapBnd/ { print $2 }' /proc/self/status | sort -u"), "0000000000000000\n1");
    assert_eq!(sh("touch /file 2>/dev/null || echo refused"), "refused");
    // The tmpfs ends at its limit; the other volume is a directory of the pod's disk.
    assert_eq!(sh("dd if=/dev/zero of=/fast/big bs=64k 2>/dev/null; wc -c </fast/big"), "1048576");
    assert_eq!(sh("grep -c ' /fast tmpfs ' /proc/mounts; grep -c ' /plain ext4 ' /proc/mounts"), "1\n1");
    assert_eq!(
        sh("echo x >/plain/sub/dir/file 2>/dev/null && cat /below/file; touch /below/y 2>/dev/null || echo refused"),
        "x\nrefused"
    );
    husk.down(&pod);
}

#[test]
fn an_unsupported_field_is_refused_by_its_name_before_anything_is_made() {
    let husk = Husk::new();
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: refused}}\nspec:\n{spec}");
    let container = "  containers:\n    - name: app\n      image: busybox\n";
    let cases = [
        (pod(&format!("  hostNetwork: true\n{container}")), vec!["spec.hostNetwork"]),
        (
            pod(&format!("{container}      ports: [{{containerPort: 80, hostPort: 70000}}]\n")),
            vec!["hostPort", "70000"],
        ),
        (
            pod(&format!("{container}  volumes: [{{name: kvm, hostPath: {{path: /dev/kvm, type: CharDevice}}}}]\n")),
            vec!["spec.volumes[0].hostPath.type", "CharDevice"],
        ),
        (
            pod(&format!("{container}      lifecycle: {{postStart: {{tcpSocket: {{port: 80}}}}}}\n")),
            vec!["lifecycle.postStart.tcpSocket"],
        ),
        (pod(&format!("{container}      imagePulPolicy: Always\n")), vec!["imagePulPolicy"]),
        (pod(&format!("{container}      resources: {{limits: {{memory: lots}}}}\n")), vec!["memory", "lots"]),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n".to_owned(), vec!["Deployment", "Pod"]),
        ("kind: Pod\n  indented: wrongly\n".to_owned(), vec!["YAML"]),
    ];
    for (manifest, words) in cases {
        let file = manifest_file(&manifest);
        husk.run(&["kube", "play", &file.to_string_lossy()]).fails_saying(&words);
        husk.leaves_nothing();
    }
    husk.run(&["kube", "play", "/no/such/manifest.yaml"]).fails_saying(&["/no/such/manifest.yaml"]);
}

#[test]
fn a_pod_with_an_unknown_image_leaves_no_pod() {
    let husk = Husk::new();
    let manifest = manifest_file(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers: [{name: a, image: no/such-image}]\n",
    );
    husk.run(&["kube", "play", &manifest.to_string_lossy()]).fails_saying(&["no/such-image"]);
    husk.leaves_nothing();
}

#[test]
fn a_pod_is_listed_stopped_and_removed_by_name() {
    let husk = Husk::new();
    husk.play("shared-pid.yaml");
    let pods = husk.run(&["pod", "ls", "--format", "json"]).success().json();
    let named = |object: &Value| object.get("Name").and_then(Value::as_str) == Some("shared-pid");
    assert!(find_object(&pods, &named).is_some(), "{pods:#}");
    husk.ok(&["pod", "stop", "shared-pid"]);
    assert_eq!(husk.container("shared-pid-debug").status(), "exited");
    husk.ok(&["pod", "rm", "shared-pid"]);
    husk.leaves_nothing();
    husk.run(&["pod", "inspect", "shared-pid"]).fails_saying(&["shared-pid"]);
}
