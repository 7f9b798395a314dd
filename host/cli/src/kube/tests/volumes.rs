//! Volumes, mounts, and the ConfigMaps and Secrets that they and the environment show.

use std::path::Path;

use super::*;
use crate::pods::plan::{HostPath, HostPathKind, MountFlag, Propagation};

const OBJECTS: &str = r#"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, nginx.conf: "server {}"}
binaryData: {logo: AP8=}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
type: Opaque
data: {password: aHVudGVyMg==}
stringData: {user: admin}
"#;

fn play_with_objects(extra: &str, spec: &str) -> PodPlan {
    play(&format!("{}{OBJECTS}", pod(extra, spec))).remove(0)
}

fn refusal_with_objects(extra: &str, spec: &str) -> String {
    refusal(&format!("{}{OBJECTS}", pod(extra, spec)))
}

/// Path, mode and content of the files of the first volume.
fn files(plan: &PodPlan) -> Vec<(String, u32, String)> {
    match &plan.volumes[0].source {
        VolumeSource::Files { payload, .. } => payload.listing(),
        other => panic!("{other:?}"),
    }
}

fn file(path: &str, mode: u32, content: &str) -> (String, u32, String) {
    (path.to_owned(), mode, content.to_owned())
}

#[test]
fn every_type_of_host_path_is_known() {
    for (kind, expected) in [
        ("", HostPathKind::Any),
        (", type: \"\"", HostPathKind::Any),
        (", type: DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
        (", type: Directory", HostPathKind::Directory),
        (", type: FileOrCreate", HostPathKind::FileOrCreate),
        (", type: File", HostPathKind::File),
        (", type: Socket", HostPathKind::Socket),
    ] {
        let plan = play(&pod("", &format!("volumes: [{{name: v, hostPath: {{path: /data{kind}}}}}]"))).remove(0);
        assert_eq!(plan.volumes[0].source, VolumeSource::Host(HostPath { path: "/data".into(), kind: expected }));
    }
    for (source, expected) in [
        ("{path: /dev/kvm, type: CharDevice}", "hostPath.type: CharDevice is not supported"),
        ("{path: /x, type: Folder}", "\"Folder\" is none of"),
        ("{path: data}", "must be an absolute path"),
        ("{path: /data/../etc}", "without \"..\""),
    ] {
        let text = refusal(&pod("", &format!("volumes: [{{name: v, hostPath: {source}}}]")));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_block_device_goes_by_volume_devices() {
    let disk = "volumes: [{name: d, hostPath: {path: /dev/vdb, type: BlockDevice}}, {name: e}]";
    let play = play(&pod("volumeDevices: [{name: d, devicePath: /dev/data}]", disk)).remove(0);
    let device = &play.containers[0].devices[0];
    assert_eq!((device.host.as_path(), device.container.as_str()), (Path::new("/dev/vdb"), "/dev/data"));
    for (container, expected) in [
        ("volumeDevices: [{name: d, devicePath: /data}]", "must be a path below /dev"),
        ("volumeDevices: [{name: e, devicePath: /dev/x}]", "volume e is no block device"),
        ("volumeDevices: [{name: f, devicePath: /dev/x}]", "there is no volume \"f\""),
        ("volumeDevices: [{name: d, devicePath: /dev/x}, {name: d, devicePath: /dev/x}]", "is given twice"),
        ("volumeMounts: [{name: d, mountPath: /x}]", "name it in volumeDevices"),
    ] {
        let text = refusal(&pod(container, disk));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_config_map_is_files_with_modes() {
    let all = play_with_objects("", "volumes: [{name: v, configMap: {name: settings}}]");
    let expected =
        [file("colour", 0o644, "red"), file("logo", 0o644, "\0\u{fffd}"), file("nginx.conf", 0o644, "server {}")];
    assert_eq!(files(&all), expected);
    let some = "volumes: [{name: v, configMap: {name: settings, defaultMode: 0400, items: [{key: colour, path: a/b}, \
                {key: nginx.conf, path: c, mode: 0755}]}}]";
    assert_eq!(files(&play_with_objects("", some)), [file("a/b", 0o400, "red"), file("c", 0o755, "server {}")]);
}

#[test]
fn a_secret_is_files_that_nobody_sees_on_the_way() {
    let plan = play_with_objects("", "volumes: [{name: v, secret: {secretName: login, defaultMode: 256}}]");
    assert_eq!(files(&plan), [file("password", 0o400, "hunter2"), file("user", 0o400, "admin")]);
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[test]
fn the_downward_api_is_files_too() {
    let items = "[{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: name, mode: 0600, fieldRef: \
                 {fieldPath: metadata.name}}, {path: cpu, resourceFieldRef: {containerName: app, resource: \
                 limits.cpu, divisor: 1m}}]";
    let spec = format!("volumes: [{{name: v, downwardAPI: {{items: {items}}}}}]");
    let plan = play(&pod("resources: {limits: {cpu: 1.5}}", &spec)).remove(0);
    assert_eq!(files(&plan), [file("cpu", 0o644, "1500"), file("labels", 0o644, ""), file("name", 0o600, "web")]);
}

#[test]
fn a_projected_volume_gathers_its_sources() {
    let sources = "[{configMap: {name: settings, items: [{key: colour, path: c/colour}]}}, {secret: {name: login, \
                   items: [{key: password, path: c/password, mode: 0400}]}}, {secret: {name: none, optional: true}}, \
                   {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]";
    let plan = play_with_objects("", &format!("volumes: [{{name: v, projected: {{sources: {sources}}}}}]"));
    let expected = [file("c/colour", 0o644, "red"), file("c/password", 0o400, "hunter2"), file("name", 0o644, "web")];
    assert_eq!(files(&plan), expected);
}

#[test]
fn what_is_optional_may_be_absent() {
    let spec = "volumes: [{name: v, configMap: {name: none, optional: true}}, {name: w, secret: {secretName: login, \
                optional: true, items: [{key: none, path: x}]}}]";
    assert!(files(&play_with_objects("", spec)).is_empty());
    let env = "env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: x, optional: true}}}]\n\
               envFrom: [{configMapRef: {name: none, optional: true}}]";
    assert!(play_with_objects(env, "").containers[0].env.is_empty());
}

#[test]
fn hostile_and_impossible_files_are_refused() {
    for (source, expected) in [
        ("configMap: {name: none}", "volumes[0].configMap: there is no ConfigMap \"none\""),
        ("secret: {secretName: settings}", "there is no Secret \"settings\""),
        ("configMap: {name: settings, items: [{key: none, path: x}]}", "items[0].key: ConfigMap settings has no key"),
        ("configMap: {name: settings, items: [{key: colour, path: ../x}]}", "items[0]: \"../x\" is no path"),
        ("configMap: {name: settings, items: [{key: colour, path: /etc/x}]}", "\"/etc/x\" is no path"),
        ("configMap: {name: settings, items: [{key: colour, path: ..data}]}", "\"..data\" is no path"),
        ("configMap: {name: settings, items: [{key: colour, path: x, mode: 4096}]}", "mode 4096"),
        ("configMap: {name: settings, defaultMode: 01000}", "configMap.defaultMode: 512"),
        (
            "configMap: {name: settings, items: [{key: colour, path: a}, {key: logo, path: a/b}]}",
            "items[1]: \"a\" cannot be a file and",
        ),
        (
            "projected: {sources: [{configMap: {name: settings}}, {secret: {name: login, items: [{key: user, path: colour}]}}]}",
            "\"colour\" stands in two sources",
        ),
        ("projected: {sources: [{serviceAccountToken: {path: token}}]}", "serviceAccountToken (line"),
        ("projected: {sources: [{}]}", "has exactly one of configMap"),
        ("downwardAPI: {items: [{path: ip, fieldRef: {fieldPath: status.podIP}}]}", "status.podIP is not supported"),
        ("configMap: {name: settings}, emptyDir: {medium: Memory}", "volumes[0]: a volume has one source"),
    ] {
        let text = refusal_with_objects("", &format!("volumes: [{{name: v, {source}}}]"));
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn objects_reach_the_environment() {
    let env = "envFrom: [{prefix: P_, configMapRef: {name: settings}}, {secretRef: {name: login}}]\n\
               env:\n\
               - {name: user, value: somebody}\n\
               - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}\n\
               - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}\n\
               - {name: URL, value: \"http://$(user):$(PASSWORD)@$(P_colour)\"}\n\
               - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n\
               resources: {limits: {cpu: 2}}\n\
               command: [app, --login=$(PASSWORD), $(COLOUR)]";
    let container = play_with_objects(env, "").containers.remove(0);
    let expected = [
        ("P_colour", "red"),
        ("P_nginx.conf", "server {}"),
        ("password", "hunter2"),
        ("user", "somebody"),
        ("PASSWORD", "hunter2"),
        ("COLOUR", "red"),
        ("URL", "http://somebody:hunter2@red"),
        ("CPU", "2"),
    ];
    assert_eq!(container.env, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(container.secret_env.iter().map(String::as_str).collect::<Vec<_>>(), ["PASSWORD", "URL", "password"]);
    assert_eq!(container.secret_words.iter().map(String::as_str).collect::<Vec<_>>(), ["--login=hunter2"]);
}

#[test]
fn an_environment_that_cannot_be_is_refused() {
    for (env, expected) in [
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: login, key: x}}}]", "Secret login has no key \"x\""),
        ("env: [{name: A, valueFrom: {configMapKeyRef: {name: x, key: x}}}]", "there is no ConfigMap \"x\""),
        ("env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: logo}}}]", "has no key \"logo\""),
        ("env: [{name: A=B, value: x}]", "env[0].name: \"A=B\" is no variable name"),
        ("env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "both value and valueFrom"),
        ("envFrom: [{secretRef: {name: x}}]", "envFrom[0].secretRef: there is no Secret \"x\""),
        ("envFrom: [{prefix: a}]", "either a configMapRef or a secretRef"),
        ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]", "container app has no limits.cpu"),
    ] {
        let text = refusal_with_objects(env, "");
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn config_maps_may_stand_in_files_of_their_own() {
    let file = |text: &str| Source { name: "maps.yaml".into(), text: text.into() };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a: b}\n";
    let manifest = manifest(&pod("envFrom: [{configMapRef: {name: other}}]", ""));
    let plan = read(&manifest, &[file(map)]).unwrap().remove(0);
    assert_eq!(plan.containers[0].env, [("a".to_owned(), "b".to_owned())]);
    for (text, expected) in [
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", "maps.yaml (line 1, column 1): kind Secret"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a: 1}\n",
            "data.a (line 4, column 11): expected text",
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\nfoo: x\n", "no such field"),
        ("a: [", "maps.yaml is no YAML"),
    ] {
        let told = read(&manifest, &[file(text)]).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_manifest_can_be_taken_down_whatever_it_refers_to() {
    let text = pod("envFrom: [{configMapRef: {name: missing}}]\nlivenessProbe: {}", "");
    assert_eq!(pod_names(&manifest(&format!("{text}{OBJECTS}"))).unwrap(), ["web"]);
    assert!(matches!(pod_names(&manifest(OBJECTS)), Err(ManifestError::Empty { .. })));
}

#[test]
fn sub_paths_may_hold_variables() {
    let mounts = "env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n\
                  volumeMounts: [{name: v, mountPath: /x, subPathExpr: logs/$(NAME)}]";
    let plan = play(&pod(mounts, "volumes: [{name: v, hostPath: {path: /data}}]")).remove(0);
    assert_eq!(plan.containers[0].mounts[0].sub_path.as_deref(), Some("logs/web"));
    for (mount, expected) in [
        ("subPathExpr: $(NONE)", "subPathExpr: the container has no variable NONE"),
        ("subPathExpr: a, subPath: b", "has both subPath and subPathExpr"),
        ("subPathExpr: $(UP)/x", "subPathExpr: \"$(UP)/x\" must be a relative path"),
        ("subPath: /abs", "subPath: \"/abs\" must be a relative path"),
    ] {
        let extra = format!("env: [{{name: UP, value: ..}}]\nvolumeMounts: [{{name: v, mountPath: /x, {mount}}}]");
        let text = refusal(&pod(&extra, "volumes: [{name: v, hostPath: {path: /data}}]"));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_mount_is_as_strict_and_as_open_as_it_says() {
    let volumes =
        "volumes: [{name: v, hostPath: {path: /data}}, {name: i, image: {reference: busybox, pullPolicy: Never}}]";
    let mount = |text: &str| {
        let extra = format!("volumeMounts: [{{mountPath: /x, {text}}}]");
        play(&pod(&extra, volumes)).remove(0).containers.remove(0).mounts.remove(0).options
    };
    assert_eq!(mount("name: v").access, Access::ReadWrite);
    assert_eq!(mount("name: v, readOnly: true, recursiveReadOnly: Disabled").access, Access::ReadOnly);
    for wanted in ["IfPossible", "Enabled"] {
        let text = format!("name: v, readOnly: true, recursiveReadOnly: {wanted}");
        assert_eq!(mount(&text).access, Access::RecursiveReadOnly);
    }
    assert_eq!(mount("name: v, mountPropagation: HostToContainer").propagation, Propagation::Slave);
    assert_eq!(mount("name: v, mountPropagation: None").propagation, Propagation::Private);
    assert_eq!(mount("name: i").flags, [MountFlag::NoExec]);
    for (text, expected) in [
        ("mountPropagation: Bidirectional", "mountPropagation: Bidirectional is not supported"),
        ("mountPropagation: Both", "is none of None, HostToContainer"),
        ("recursiveReadOnly: Enabled", "Enabled needs readOnly: true"),
        (
            "readOnly: true, recursiveReadOnly: Enabled, mountPropagation: HostToContainer",
            "needs mountPropagation None",
        ),
        ("recursiveReadOnly: Maybe", "is none of Disabled, IfPossible, Enabled"),
    ] {
        let told = refusal(&pod(&format!("volumeMounts: [{{name: v, mountPath: /x, {text}}}]"), volumes));
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn the_other_kinds_of_volumes() {
    let spec = "volumes:\n- {name: a, emptyDir: {sizeLimit: 1Gi}}\n- {name: b, persistentVolumeClaim: {claimName: db, \
                readOnly: true}}\n- {name: c, image: {reference: tools, pullPolicy: Always}}\n- {name: d}";
    let sources: Vec<_> = play(&pod("", spec)).remove(0).volumes.into_iter().map(|v| v.source).collect();
    assert_eq!(sources[0], VolumeSource::Empty { medium: Medium::Disk, size: Some(1 << 30), group: None });
    assert_eq!(sources[1], VolumeSource::Named { name: "db".into(), read_only: true });
    assert!(matches!(&sources[2], VolumeSource::Image(image) if image.pull == PullPolicy::Always));
    assert_eq!(sources[3], VolumeSource::Empty { medium: Medium::Disk, size: None, group: None });
    for (source, expected) in [
        ("persistentVolumeClaim: {claimName: ../x}", "claimName: \"../x\" is no name"),
        ("image: {reference: \"\"}", "image.reference"),
        ("image: {reference: x, pullPolicy: Sometimes}", "image.pullPolicy: \"Sometimes\""),
        ("emptyDir: {medium: Tape}", "\"Tape\" is neither Memory nor empty"),
        ("emptyDir: {sizeLimit: big}", "sizeLimit: \"big\" is not a quantity"),
    ] {
        let text = refusal(&pod("", &format!("volumes: [{{name: v, {source}}}]")));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn files_are_given_to_the_pods_group() {
    let spec = "securityContext: {fsGroup: 2000, fsGroupChangePolicy: OnRootMismatch, supplementalGroups: [7]}\n\
                volumes: [{name: v, configMap: {name: settings}}, {name: h, hostPath: {path: /data}}]";
    let plan = play_with_objects("", spec);
    assert!(matches!(plan.volumes[0].source, VolumeSource::Files { group: Some(2000), .. }));
    assert_eq!(plan.containers[0].user.supplemental_groups, [7, 2000]);
    let spec = "securityContext: {fsGroup: 2000}\nvolumes: [{name: scratch, emptyDir: {}}]";
    let group = VolumeSource::Empty { medium: Medium::Disk, size: None, group: Some(2000) };
    assert_eq!(play(&pod("", spec)).remove(0).volumes[0].source, group);
    let spec = "securityContext: {fsGroup: 2000}\nvolumes: [{name: d, persistentVolumeClaim: {claimName: db}}]";
    let text = refusal(&pod("", spec));
    assert!(text.contains("spec.securityContext.fsGroup: volume d cannot be given to a group yet"), "{text}");
    assert!(refusal(&pod("", "securityContext: {fsGroup: -1}")).contains("fsGroup: -1 is not between"));
    assert!(refusal(&pod("", "securityContext: {fsGroupChangePolicy: Never}")).contains("fsGroupChangePolicy"));
}
