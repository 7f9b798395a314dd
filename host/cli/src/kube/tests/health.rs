use super::{play, pod, refusal};
use crate::pods::plan::{Action, HttpGet, Kind, Probe};

#[test]
fn probes_and_hooks_become_a_plan() {
    let plans = play(&pod(
        r#"ports: [{name: web, containerPort: 8080}]
lifecycle:
  postStart: {exec: {command: [touch, /started]}}
  preStop: {sleep: {seconds: 3}}
  stopSignal: SIGUSR1
startupProbe: {tcpSocket: {port: web}, failureThreshold: 30, periodSeconds: 1}
readinessProbe: {httpGet: {path: /ready, port: web, scheme: HTTPS, httpHeaders: [{name: A, value: b}]}, successThreshold: 2}
livenessProbe: {grpc: {port: 9, service: s}, initialDelaySeconds: 5, timeoutSeconds: 4, terminationGracePeriodSeconds: 7}"#,
        "",
    ));
    let container = &plans[0].containers[0];
    let health = &container.health;
    assert_eq!(health.post_start, Some(Action::Exec { command: vec!["touch".into(), "/started".into()] }));
    assert_eq!(health.pre_stop, Some(Action::Sleep { seconds: 3 }));
    assert_eq!(container.stop_signal, Some(10));
    let startup = health.startup.as_ref().unwrap();
    assert_eq!((&startup.action, startup.period), (&Action::Tcp { host: None, port: 8080 }, 1));
    assert_eq!(startup.failure_threshold, 30);
    let ready = health.readiness.as_ref().unwrap();
    let get =
        HttpGet { https: true, port: 8080, path: "/ready".into(), headers: vec![("A".into(), "b".into())], host: None };
    assert_eq!((&ready.action, ready.success_threshold), (&Action::Http(get), 2));
    let expected = Probe {
        action: Action::Grpc { port: 9, service: "s".into() },
        initial_delay: 5,
        period: 10,
        timeout: 4,
        success_threshold: 1,
        failure_threshold: 3,
        grace: Some(7),
    };
    assert_eq!(health.liveness, Some(expected));
    assert_eq!(health.needs_network(), Some("startupProbe"));
}

#[test]
fn a_sidecar_has_probes_and_an_init_container_has_none() {
    let init = |extra: &str| {
        pod("", &format!("initContainers:\n- {{name: i, image: x, {extra} livenessProbe: {{exec: {{command: [x]}}}}}}"))
    };
    let plan = play(&init("restartPolicy: Always,")).remove(0);
    assert_eq!(plan.containers[0].kind, Kind::Sidecar);
    assert!(plan.containers[0].health.liveness.is_some());
    assert_eq!(plan.containers[0].health.needs_network(), None);
    let text = refusal(&init(""));
    assert!(text.contains("spec.initContainers[0].livenessProbe: an init container runs to its end"), "{text}");
}

#[test]
fn probes_that_make_no_sense_are_refused_by_their_path() {
    for (extra, expected) in [
        (
            "livenessProbe: {periodSeconds: 1}",
            "livenessProbe: says nothing to do: give one of exec, httpGet, tcpSocket",
        ),
        ("livenessProbe: {exec: {command: [x]}, tcpSocket: {port: 1}}", "livenessProbe: says several things to do"),
        ("livenessProbe: {exec: {command: []}}", "livenessProbe.exec.command: names no command"),
        (
            "livenessProbe: {tcpSocket: {port: web}}",
            "livenessProbe.tcpSocket.port: the container has no port named \"web\"",
        ),
        ("livenessProbe: {tcpSocket: {port: 70000}}", "tcpSocket.port: 70000 is no port number"),
        ("livenessProbe: {tcpSocket: {port: true}}", "tcpSocket.port (line 9, column 41): expected a number or text"),
        (
            "livenessProbe: {exec: {command: [x]}, successThreshold: 2}",
            "successThreshold: must be 1 in a livenessProbe",
        ),
        ("livenessProbe: {exec: {command: [x]}, periodSeconds: -1}", "periodSeconds: -1 is less than 1"),
        (
            "readinessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 1}",
            "readinessProbe.terminationGracePeriodSeconds: a readiness probe ends nothing",
        ),
        ("startupProbe: {httpGet: {port: 1, scheme: FTP}}", "httpGet.scheme: \"FTP\" is neither HTTP nor HTTPS"),
        ("startupProbe: {httpGet: {port: 1, httpHeaders: [{name: 'a b', value: x}]}}", "httpHeaders[0]: \"a b\""),
        ("lifecycle: {preStop: {sleep: {seconds: -1}}}", "lifecycle.preStop.sleep.seconds: must not be negative"),
        (
            "lifecycle: {preStop: {tcpSocket: {port: 1}}}",
            "lifecycle.preStop.tcpSocket (line 9, column 29): not supported",
        ),
        ("lifecycle: {postStart: {}}", "lifecycle.postStart: says nothing to do"),
        ("lifecycle: {stopSignal: SIGNOPE}", "lifecycle.stopSignal: \"SIGNOPE\" is no signal"),
    ] {
        let text = refusal(&pod(extra, ""));
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}
