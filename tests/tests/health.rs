//! Sidecars, hooks and probes of `husk kube play`: what is done to containers while they run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use husk_tests::fixture::{Husk, manifest_file, wait_until};

fn manifest(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

fn ready(husk: &Husk, container: &str) -> bool {
    husk.run(&["inspect", container]).success().json()[0]["State"]["Ready"] == true
}

#[test]
fn sidecars_start_before_and_end_after_the_others_with_hooks_in_between() {
    let husk = Husk::new();
    let dir = tempfile::tempdir_in("/run").unwrap();
    // Each says on what the host sees when it starts and when it is told to end.
    let container = |name: &str, extra: &str| {
        format!(
            "- {{name: {name}, image: busybox, volumeMounts: [{{name: log, mountPath: /log}}], {extra}, command: [sh, -c, \
             \"echo {name} starts >>/log/log; trap 'echo {name} ends >>/log/log; exit 0' TERM; while :; do sleep 0.1; done\"]}}\n"
        )
    };
    let probe = "restartPolicy: Always, startupProbe: {exec: {command: [test, -e, /log/go]}, periodSeconds: 1, failureThreshold: 1000}";
    let hooks = "lifecycle: {postStart: {exec: {command: [sh, -c, \"echo hooked >>/log/log\"]}}, \
                 preStop: {exec: {command: [sh, -c, \"echo app is to end >>/log/log\"]}}}";
    let spec = format!(
        "  terminationGracePeriodSeconds: 300\n  volumes: [{{name: log, hostPath: {{path: {}}}}}]\n  initContainers:\n  {}  {}  containers:\n  {}",
        dir.path().display(),
        container("one", probe),
        container("two", "restartPolicy: Always"),
        container("app", hooks),
    );
    let file = manifest_file(&manifest("ordered", &spec));
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let playing = husk.start(&["kube", "play", &file.to_string_lossy()]);
    wait_until("the first sidecar", 30, || log().contains("one starts"));
    assert!(!ready(&husk, "ordered-one"));
    assert_eq!(log(), "one starts\n");
    std::fs::write(dir.path().join("go"), "").unwrap();
    playing.finish().success();
    wait_until("the app and its hook", 30, || log().contains("hooked") && log().contains("app starts"));
    let begun: Vec<_> = log().lines().map(str::to_owned).collect();
    assert_eq!(begun[..2], ["one starts", "two starts"]);
    let conditions = husk.inspect("ordered")["Conditions"].clone();
    assert!(conditions.as_array().unwrap().iter().all(|c| c["Status"] == "True"), "{conditions}");
    // A sidecar that ends is started again.
    husk.ok(&["kill", "-s", "TERM", "ordered-two"]);
    wait_until("the sidecar's restart", 30, || log().matches("two starts").count() == 2);
    husk.down(&file);
    let ends: Vec<_> = log().lines().skip_while(|line| *line != "app is to end").map(str::to_owned).collect();
    assert_eq!(ends, ["app is to end", "app ends", "two ends", "one ends"]);
}

#[test]
fn a_pod_completes_although_its_sidecar_would_run_on() {
    let husk = Husk::new();
    let spec = "  restartPolicy: Never\n  initContainers:\n  - {name: side, image: busybox, restartPolicy: Always, command: [sleep, '1000']}\n  \
                containers:\n  - {name: app, image: busybox, command: [sh, -c, 'exit 0']}\n";
    let file = husk.play_text(&manifest("short", spec));
    assert_eq!(husk.wait_for_exit("short-app").exit_code(), 0);
    wait_until("the pod's end", 60, || husk.inspect("short")["State"] == "Succeeded");
    husk.down(&file);
}

#[test]
fn probes_decide_over_readiness_and_restarts() {
    let husk = Husk::new();
    let spec = "  containers:\n  - name: app\n    image: busybox\n    command: [sh, -c, \"touch /alive; while :; do sleep 1; done\"]\n    \
                readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 1}\n    \
                livenessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 2, \
                terminationGracePeriodSeconds: 1, initialDelaySeconds: 2}\n  \
                - name: hooked\n    image: busybox\n    command: [sleep, '1000']\n    lifecycle: {postStart: {exec: {command: ['false']}}}\n";
    let file = husk.play_text(&manifest("probed", spec));
    // A postStart hook that fails ends its container, again and again.
    wait_until("restarts of the container with a bad hook", 60, || husk.container("probed-hooked").restarts() >= 2);
    assert!(!ready(&husk, "probed-app"));
    husk.sh("probed-app", "touch /tmp/ready");
    wait_until("readiness", 30, || ready(&husk, "probed-app"));
    assert!(husk.ok(&["ps"]).contains("(ready)"));
    husk.sh("probed-app", "rm /tmp/ready");
    wait_until("the end of readiness", 30, || !ready(&husk, "probed-app"));
    assert_eq!(husk.container("probed-app").restarts(), 0);
    husk.sh("probed-app", "rm /alive");
    wait_until("the restart", 60, || husk.container("probed-app").restarts() >= 1);
    husk.down(&file);
}

#[test]
fn requests_of_probes_go_to_the_pods_address() {
    let husk = Husk::new();
    // httpbin listens on port 80 and knows no other paths than httpbin's.
    let spec = "  containers:\n  - name: app\n    image: kennethreitz/httpbin\n    ports: [{name: web, containerPort: 80}]\n    \
                startupProbe: {tcpSocket: {port: web}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 100}\n    \
                readinessProbe: {httpGet: {port: web, path: /status/204}, periodSeconds: 1, timeoutSeconds: 60}\n    \
                livenessProbe: {httpGet: {port: web, path: /status/200}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 100}\n  \
                - name: wrong\n    image: busybox\n    command: [sleep, '1000']\n    \
                readinessProbe: {httpGet: {port: 80, path: /status/500}, periodSeconds: 1, timeoutSeconds: 60}\n";
    let file = manifest_file(&manifest("asked", spec));
    let path = file.to_string_lossy();
    husk.run(&["kube", "play", &path]).fails_saying(&["startupProbe of container app", "without a network"]);
    husk.leaves_nothing();
    husk.ok(&["kube", "play", "--network", "bridge", &path]);
    wait_until("readiness", 60, || ready(&husk, "asked-app"));
    assert!(!ready(&husk, "asked-wrong"));
    assert_eq!(husk.container("asked-app").restarts(), 0);
    husk.down(&file);
}
