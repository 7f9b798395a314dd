use super::*;
use crate::network::plan::BandwidthPlan;
use crate::pods::plan::{
    Access, ExitPolicy, Kind, Medium, MountSource, PullPolicy, RestartPolicy, SeccompPlan, UsersPlan, VolumeSource,
};

mod health;
mod volumes;

fn manifest(text: &str) -> Source {
    Source { name: "pod.yaml".to_owned(), text: text.to_owned() }
}

fn play(text: &str) -> Vec<PodPlan> {
    read(&manifest(text), &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    read(&manifest(text), &[]).unwrap_err().to_string()
}

/// A pod with one container, `extra` at the container's indentation and `spec` at the spec's.
fn pod(extra: &str, spec: &str) -> String {
    let indent =
        |text: &str, by: usize| text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n{}  containers:\n    - name: app\n      image: nginx\n{}",
        indent(spec, 2),
        indent(extra, 6)
    )
}

#[test]
fn a_pod_with_users_of_its_own_has_id_mapped_volumes() {
    let mounts = "volumeMounts:\n  - {name: data, mountPath: /data}";
    let of = |users: &str| {
        let text = pod(mounts, &format!("{users}volumes:\n  - {{name: data, emptyDir: {{}}}}"));
        let plan = play(&text).remove(0).containers.remove(0);
        (plan.users, plan.mounts[0].options.id_mapped)
    };
    assert_eq!(of("hostUsers: false\n"), (Some(UsersPlan::default()), true));
    assert_eq!(of("hostUsers: true\n"), (None, false));
    assert_eq!(of(""), (None, false));
}

#[test]
fn a_sidecar_pod_becomes_a_plan() {
    let plans = play(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: foo
spec:
  containers:
    - name: app
      image: docker.io/kennethreitz/httpbin
      ports:
        - containerPort: 80
      resources:
        limits:
          memory: "256Mi"
    - name: sidecar
      image: curlimages/curl
      command: ["/bin/sleep", "3650d"]
      resources:
        limits:
          memory: "128Mi"
"#,
    );
    let [plan] = plans.as_slice() else { panic!("one pod") };
    assert_eq!((plan.name.as_str(), plan.hostname.as_str(), plan.namespace.as_str()), ("foo", "foo", "default"));
    assert_eq!((plan.restart_policy, plan.exit_policy), (RestartPolicy::Always, ExitPolicy::Stop));
    let [app, sidecar] = plan.containers.as_slice() else { panic!("two containers") };
    assert_eq!(app.limits.memory, Some(268_435_456));
    assert_eq!(sidecar.limits.memory, Some(134_217_728));
    assert_eq!(sidecar.entrypoint, Some(vec!["/bin/sleep".to_owned(), "3650d".to_owned()]));
    assert_eq!(app.entrypoint, None);
    assert_eq!(app.stop_timeout, 10);
}

#[test]
fn init_containers_come_first_and_share_a_volume() {
    let plans = play(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: javaweb-2}
spec:
  initContainers:
    - {name: war, image: "sample:v2", command: ["cp", "/sample.war", "/app"], volumeMounts: [{mountPath: /app, name: v}]}
    - {name: helper, image: helper, restartPolicy: Always}
  containers:
    - {name: tomcat, image: "tomcat:7.0", volumeMounts: [{mountPath: /webapps, name: v, readOnly: true, subPath: a/b}]}
  volumes:
    - {name: v, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
"#,
    );
    let plan = &plans[0];
    let kinds: Vec<_> = plan.containers.iter().map(|c| (c.name.as_str(), c.kind, c.restart)).collect();
    assert_eq!(
        kinds,
        [
            ("war", Kind::Init, RestartPolicy::OnFailure),
            ("helper", Kind::Sidecar, RestartPolicy::Always),
            ("tomcat", Kind::App, RestartPolicy::Always)
        ]
    );
    assert_eq!(
        plan.volumes[0].source,
        VolumeSource::Empty { medium: Medium::Memory, size: Some(64 << 20), group: None }
    );
    let mount = &plan.containers[2].mounts[0];
    assert_eq!((mount.options.access, mount.sub_path.as_deref()), (Access::ReadOnly, Some("a/b")));
    assert_eq!(mount.source, MountSource::PodVolume { name: "v".into() });
}

#[test]
fn a_refused_field_is_named_by_its_full_path_and_place() {
    let text = refusal(&pod("terminationMessagePath: /x", ""));
    assert!(
        text.starts_with(
            "pod.yaml cannot be played as it stands: spec.containers[0].terminationMessagePath (line 9, column 7)"
        ),
        "{text}"
    );
}

#[test]
fn ports_names_and_aliases_make_the_network() {
    let spec = "dnsPolicy: None\ndnsConfig:\n  nameservers: [10.0.0.2]\n  options: [{name: ndots, value: \"2\"}]\n\
                hostAliases:\n  - {ip: 10.0.0.5, hostnames: [db, db.example]}";
    let plan =
        play(&pod("ports:\n  - {containerPort: 8080, hostPort: 8001}\n  - {containerPort: 53, protocol: UDP}", spec))
            .remove(0);
    let shown: Vec<_> = plan.network.ports.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["0.0.0.0:8001->8080/tcp"]);
    assert_eq!(plan.network.dns.options, ["ndots:2"]);
    assert_eq!(plan.network.hosts.len(), 2);
}

#[test]
fn bandwidth_is_annotated() {
    let annotated = |rate: &str| {
        let annotation = format!("metadata:\n  annotations: {{kubernetes.io/egress-bandwidth: {rate}}}");
        pod("", "").replacen("metadata:", &annotation, 1)
    };
    let plan = play(&annotated("10M")).remove(0);
    assert_eq!(plan.network.bandwidth, BandwidthPlan { ingress: None, egress: Some(10_000_000) });
    let text = refusal(&annotated("\"1\""));
    assert!(text.contains("metadata.annotations['kubernetes.io/egress-bandwidth']: 1 is not within 1k"), "{text}");
}

#[test]
fn ports_that_cannot_be_are_named() {
    for (ports, expected) in [
        ("ports:\n  - {containerPort: 80, hostPort: 70000}", "ports[0].hostPort: 70000"),
        ("ports:\n  - {containerPort: 0}", "ports[0].containerPort: 0"),
        ("ports:\n  - {containerPort: 80, hostPort: 1}\n  - {containerPort: 81, hostPort: 1}", "taken twice"),
        ("ports:\n  - {containerPort: 80, hostPort: 1, hostIP: x}", "ports[0].hostIP"),
        ("ports:\n  - {containerPort: 80, hostPort: 1, hostIP: '::1'}", "ports[0].hostIP"),
        ("ports:\n  - {containerPort: 80, protocol: ICMP}", "ports[0].protocol"),
    ] {
        let text = refusal(&pod(ports, ""));
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn fields_that_cannot_be_honoured_are_each_named() {
    for (extra, spec, expected) in [
        (
            "securityContext:\n  appArmorProfile: {type: RuntimeDefault}",
            "",
            "securityContext.appArmorProfile.type (line 10, column 27): \"RuntimeDefault\" is not supported",
        ),
        ("resources:\n  limits:\n    nvidia.com/gpu: 1", "", "spec.containers[0].resources.limits.nvidia.com/gpu"),
        ("resources:\n  limits:\n    ephemeral-storage: 1Gi", "", "limits.ephemeral-storage"),
        ("", "hostNetwork: true", "spec.hostNetwork (line 6, column 3): true is not supported"),
        ("", "volumes:\n  - name: v\n    nfs:\n      path: /x", "spec.volumes[0].nfs"),
        ("", "nodeSelector:\n  a: b", "spec.nodeSelector"),
        ("", "priorityClassName: high", "spec.priorityClassName (line 6, column 3): not supported by this version"),
        ("", "runtimeClassName: kata", "spec.runtimeClassName"),
        ("restartPolicy: OnFailure", "", "spec.containers[0].restartPolicy"),
    ] {
        let text = refusal(&pod(extra, spec));
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_field_that_kubernetes_does_not_have_is_called_unknown() {
    let text = refusal(&pod("imgae: x", ""));
    assert!(
        text.contains("spec.containers[0].imgae (line 9, column 7): no such field: known here are name,"),
        "{text}"
    );
    let text = refusal(&pod("", "restartpolicy: Never"));
    assert!(text.contains("spec.restartpolicy (line 6, column 3): no such field"), "{text}");
}

#[test]
fn defaults_written_out_are_no_reason_to_refuse() {
    let spec = "hostNetwork: false\nruntimeClassName: husk\naffinity: {}\nnodeSelector:\ntolerations: []";
    assert_eq!(play(&pod("stdinOnce: false\nenv: []", spec)).len(), 1);
}

#[test]
fn a_value_of_the_wrong_type_names_what_was_expected() {
    let text = refusal(&pod("command: /bin/sh\nenv:\n  - name: A\n    value: 1", ""));
    assert!(text.contains("spec.containers[0].command (line 9, column 16): expected a list, found text"), "{text}");
    assert!(
        text.contains("spec.containers[0].env[0].value (line 12, column 18): expected text (put it in quotes)"),
        "{text}"
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (extra, spec, expected) in [
        ("volumeMounts:\n  - {name: v, mountPath: /x}", "", "there is no volume \"v\""),
        ("volumeMounts:\n  - {name: v, mountPath: x}", "volumes: [{name: v}]", "must be an absolute path"),
        ("volumeMounts:\n  - {name: v, mountPath: /}", "volumes: [{name: v}]", "must be an absolute path"),
        (
            "volumeMounts:\n  - {name: v, mountPath: /x, subPath: ../y}",
            "volumes: [{name: v}]",
            "volumeMounts[0].subPath",
        ),
        ("resources: {limits: {memory: 1Mi}}", "", "resources.limits.memory: is less than"),
        ("resources: {limits: {memory: 64Mi}, requests: {memory: 65Mi}}", "", "requests.memory: is more than"),
        ("resources: {limits: {memory: 64Mi}}", "resources: {limits: {memory: 32Mi}}", "container app"),
        ("resources: {limits: {memory: 64MB}}", "", "limits.memory: \"64MB\" is not a quantity"),
        ("workingDir: tmp", "", "spec.containers[0].workingDir: must be an absolute path"),
        ("imagePullPolicy: Sometimes", "", "imagePullPolicy: \"Sometimes\""),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]", "", "status.podIP is not supported"),
        ("", "restartPolicy: Sometimes", "spec.restartPolicy: \"Sometimes\""),
        ("", "volumes: [{name: v}, {name: v}]", "there are two volumes named v"),
        ("", "hostname: Web_1", "spec.hostname: \"Web_1\" is no host name"),
        ("", "terminationGracePeriodSeconds: -1", "must not be negative"),
        ("securityContext: {capabilities: {add: [FLY]}}", "", "capabilities.add[0]: \"FLY\" is no capability"),
        ("securityContext: {runAsNonRoot: true, runAsUser: 0}", "", "runAsUser is 0"),
        ("ports: [{containerPort: 70000}]", "", "70000 is no port number"),
    ] {
        let text = refusal(&pod(extra, spec));
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = refusal(&pod("tty: yes-please\nfoo: 1", "hostPID: true"));
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn other_kinds_are_refused_before_anything_is_played() {
    let two = format!("{}---\napiVersion: apps/v1\nkind: Deployment\n", pod("", ""));
    let text = refusal(&two);
    assert!(text.contains("kind Deployment (apiVersion apps/v1) is not supported"), "{text}");
    assert!(matches!(read(&manifest("--- \n"), &[]), Err(ManifestError::Empty { .. })));
    assert!(matches!(read(&manifest("a: ["), &[]), Err(ManifestError::Yaml { .. })));
}

#[test]
fn two_pods_in_one_manifest_are_two_plans() {
    let other = pod("", "").replace("name: web", "name: db");
    assert_eq!(play(&format!("{}---\n{other}", pod("", ""))).len(), 2);
    assert!(refusal(&format!("{0}---\n{0}", pod("", ""))).contains("there are two pods named web"));
}

#[test]
fn env_reaches_command_and_args_by_kubernetes_rules() {
    let plans = play(&pod(
        r#"command: ["echo", "$(GREETING)", "$$(GREETING)", "$(NONE)"]
args: ["$(NAME)"]
env:
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: GREETING, value: "hello $(NAME)"}
  - {name: ZONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['zone']"}}}"#,
        "",
    ));
    let container = &plans[0].containers[0];
    assert_eq!(container.entrypoint.as_ref().unwrap(), &["echo", "hello web", "$(GREETING)", "$(NONE)"]);
    assert_eq!(container.args.as_ref().unwrap(), &["web"]);
    assert_eq!(container.env[2], ("ZONE".into(), String::new()));
}

#[test]
fn an_env_value_sees_the_entries_above_it_only() {
    let env =
        "env: [{name: B, value: $(A)}, {name: A, value: \"1\"}, {name: C, value: $(A)$(B)}, {name: A, value: \"2\"}]";
    let expected = [("B", "$(A)"), ("A", "2"), ("C", "1$(A)")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(play(&pod(env, ""))[0].containers[0].env, expected);
}

#[test]
fn the_containers_security_context_wins_over_the_pods() {
    let plans = play(&pod(
        "securityContext: {runAsUser: 7, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [CHOWN]}}\nimagePullPolicy: Never",
        "securityContext: {runAsUser: 5, runAsGroup: 6, supplementalGroups: [8, 9], runAsNonRoot: true}",
    ));
    let container = &plans[0].containers[0];
    assert_eq!((container.user.user.as_deref(), container.user.group.as_deref()), (Some("7"), Some("6")));
    assert_eq!(container.user.supplemental_groups, [8, 9]);
    assert!(container.user.must_not_be_root && container.read_only_rootfs && container.no_new_privileges);
    assert_eq!(container.capabilities.drop, ["ALL"]);
    assert_eq!(container.pull, PullPolicy::Never);
}

#[test]
fn seccomp_profiles_come_from_the_container_the_pod_or_nobody() {
    let seccomp = |own: &str, pods: &str| play(&pod(own, pods))[0].containers[0].seccomp.clone();
    let profile = |text: &str| format!("securityContext: {{seccompProfile: {{{text}}}}}");
    assert_eq!(seccomp("", ""), SeccompPlan::RuntimeDefault);
    let pods = profile("type: Unconfined");
    assert_eq!(seccomp("", &pods), SeccompPlan::Unconfined);
    assert_eq!(seccomp(&profile("type: RuntimeDefault"), &pods), SeccompPlan::RuntimeDefault);
    let own = profile("type: Localhost, localhostProfile: a/b.json");
    assert_eq!(seccomp(&own, &pods), SeccompPlan::Localhost("a/b.json".to_owned()));
    for (text, told) in [
        ("type: Localhost", "needs it"),
        ("type: Unconfined, localhostProfile: x", "is for profiles of type Localhost"),
        ("type: Dance", "none of RuntimeDefault"),
    ] {
        assert!(refusal(&pod(&profile(text), "")).contains(told), "{text}");
    }
}

#[test]
fn privileges_are_given_and_contradictions_told() {
    let plans = play(&pod(
        "securityContext: {privileged: true, procMount: Unmasked, appArmorProfile: {type: Unconfined}}",
        "securityContext: {seccompProfile: {type: RuntimeDefault}, supplementalGroupsPolicy: Strict}",
    ));
    let container = &plans[0].containers[0];
    assert!(container.exposure.privileged && container.exposure.unmasked && container.user.strict_groups);
    assert_eq!(container.seccomp, SeccompPlan::Unconfined);
    for (text, told) in [
        ("privileged: true, allowPrivilegeEscalation: false", "change one"),
        ("procMount: Naked", "none of Default"),
        ("appArmorProfile: {type: RuntimeDefault}", "no AppArmor"),
        ("seLinuxOptions: {level: s0}", "no such security module"),
    ] {
        let told_us = refusal(&pod(&format!("securityContext: {{{text}}}"), ""));
        assert!(told_us.contains(told), "{told_us}");
    }
}

#[test]
fn numbers_are_quantities_too() {
    let plans = play(&pod("resources: {limits: {cpu: 0.5, memory: 67108864}, requests: {cpu: 1e-1}}", ""));
    let limits = plans[0].containers[0].limits;
    assert_eq!((limits.cpu_milli, limits.memory, limits.cpu_shares), (Some(500), Some(67_108_864), Some(102)));
}
