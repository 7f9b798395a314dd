//! The fields of a Pod that Husk honours, and advice for those that it does not.
//!
//! One table per object, in the order of the Kubernetes API reference. A field that is in no table is refused too,
//! with a general text; an entry of kind [`Rule::Refuse`] exists only to say something more useful.

mod health;
mod volumes;

use health::{LIFECYCLE, PROBE};
use volumes::{VOLUME, VOLUME_DEVICE, VOLUME_MOUNT};

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Flag,
    Whole,
    /// A port by its number or name.
    WholeOrText,
    /// A Kubernetes quantity: text, or a plain number.
    Quantity,
    List(&'static Shape),
    /// A mapping with names of the user's choice.
    Names(&'static Shape),
    Object(&'static [Field]),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
}

#[derive(Debug)]
pub(super) enum Rule {
    Take(Shape),
    /// Only this value, which is what happens anyway; the text says why no other.
    Only(Value, &'static str),
    /// Not at all; the text says what to do instead.
    Refuse(&'static str),
}

#[derive(Debug)]
pub(super) enum Value {
    Flag(bool),
    Text(&'static str),
}

const fn take(name: &'static str, shape: Shape) -> Field {
    Field { name, rule: Rule::Take(shape) }
}

const fn refuse(name: &'static str, advice: &'static str) -> Field {
    Field { name, rule: Rule::Refuse(advice) }
}

const fn off(name: &'static str, advice: &'static str) -> Field {
    Field { name, rule: Rule::Only(Value::Flag(false), advice) }
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const LABELS: Shape = Shape::Names(&Shape::Text);

const NO_HOST_NAMESPACE: &str = "a pod has a kernel of its own and no way to the host's namespaces; remove it";
const NO_TOKENS: &str = "there is no API server that would issue or know it; remove it";
const NO_LSM: &str = "the guest kernel has no such security module; remove it";

/// The whole manifest.
pub(super) const POD: &[Field] = &[
    take("apiVersion", Shape::Text),
    take("kind", Shape::Text),
    take("metadata", Shape::Object(METADATA)),
    take("spec", Shape::Object(SPEC)),
    refuse("status", "it is what a cluster reports, not what it is asked for; remove it"),
];

/// Beside the pods: what their volumes and environments are made of.
pub(super) const CONFIG_MAP: &[Field] = &[
    take("apiVersion", Shape::Text),
    take("kind", Shape::Text),
    take("metadata", Shape::Object(METADATA)),
    take("data", LABELS),
    take("binaryData", LABELS),
    take("immutable", Shape::Flag),
];

pub(super) const SECRET: &[Field] = &[
    take("apiVersion", Shape::Text),
    take("kind", Shape::Text),
    take("metadata", Shape::Object(METADATA)),
    take("type", Shape::Text),
    take("data", LABELS),
    take("stringData", LABELS),
    take("immutable", Shape::Flag),
];

const METADATA: &[Field] = &[
    take("name", Shape::Text),
    take("namespace", Shape::Text),
    take("labels", LABELS),
    take("annotations", LABELS),
    refuse("generateName", "give the pod a metadata.name"),
];

const SPEC: &[Field] = &[
    take("containers", Shape::List(&Shape::Object(CONTAINER))),
    take("initContainers", Shape::List(&Shape::Object(INIT_CONTAINER))),
    take("volumes", Shape::List(&Shape::Object(VOLUME))),
    take("restartPolicy", Shape::Text),
    take("terminationGracePeriodSeconds", Shape::Whole),
    take("hostname", Shape::Text),
    take("shareProcessNamespace", Shape::Flag),
    take("securityContext", Shape::Object(POD_SECURITY)),
    Field {
        name: "runtimeClassName",
        rule: Rule::Only(Value::Text("husk"), "there is one runtime here; remove it or write husk"),
    },
    off("hostNetwork", NO_HOST_NAMESPACE),
    off("hostPID", NO_HOST_NAMESPACE),
    off("hostIPC", NO_HOST_NAMESPACE),
    refuse("ephemeralContainers", "they are added to running pods; use `husk debug`"),
    refuse("activeDeadlineSeconds", "use `timeout` in the container's command"),
    refuse("nodeSelector", "there is one machine; remove it"),
    refuse("nodeName", "there is one machine; remove it"),
    refuse("affinity", "there is one machine; remove it"),
    refuse("tolerations", "there is one machine; remove it"),
    refuse("topologySpreadConstraints", "there is one machine; remove it"),
    refuse("imagePullSecrets", "pulls are anonymous in this version; `husk load` an archive of the image"),
    refuse("serviceAccountName", "there is no API server; remove it"),
    take("hostAliases", Shape::List(&Shape::Object(&[take("ip", Shape::Text), take("hostnames", TEXTS)]))),
    take("dnsPolicy", Shape::Text),
    take("dnsConfig", Shape::Object(DNS)),
    refuse("subdomain", "there is no cluster whose name server would know it; remove it"),
    take("hostUsers", Shape::Flag),
    take("resources", Shape::Object(RESOURCES)),
];

const CONTAINER: &[Field] = &[
    take("name", Shape::Text),
    take("image", Shape::Text),
    take("imagePullPolicy", Shape::Text),
    take("command", TEXTS),
    take("args", TEXTS),
    take("workingDir", Shape::Text),
    take("env", Shape::List(&Shape::Object(ENV))),
    take("ports", Shape::List(&Shape::Object(PORT))),
    take("resources", Shape::Object(RESOURCES)),
    take("volumeMounts", Shape::List(&Shape::Object(VOLUME_MOUNT))),
    take("volumeDevices", Shape::List(&Shape::Object(VOLUME_DEVICE))),
    take("stdin", Shape::Flag),
    take("tty", Shape::Flag),
    take("securityContext", Shape::Object(SECURITY)),
    off("stdinOnce", "standard input stays open; remove it"),
    take("envFrom", Shape::List(&Shape::Object(ENV_FROM))),
    take("livenessProbe", Shape::Object(PROBE)),
    take("readinessProbe", Shape::Object(PROBE)),
    take("startupProbe", Shape::Object(PROBE)),
    take("lifecycle", Shape::Object(LIFECYCLE)),
    refuse("restartPolicy", "only init containers take it (Always makes a sidecar); set spec.restartPolicy"),
    refuse("terminationMessagePath", "the message is not collected; remove it"),
    refuse("terminationMessagePolicy", "the message is not collected; remove it"),
];

/// A container's fields, with the restart policy that makes it a sidecar.
const INIT_CONTAINER: &[Field] = &[
    take("name", Shape::Text),
    take("image", Shape::Text),
    take("imagePullPolicy", Shape::Text),
    take("command", TEXTS),
    take("args", TEXTS),
    take("workingDir", Shape::Text),
    take("env", Shape::List(&Shape::Object(ENV))),
    take("ports", Shape::List(&Shape::Object(PORT))),
    take("resources", Shape::Object(RESOURCES)),
    take("volumeMounts", Shape::List(&Shape::Object(VOLUME_MOUNT))),
    take("volumeDevices", Shape::List(&Shape::Object(VOLUME_DEVICE))),
    take("stdin", Shape::Flag),
    take("tty", Shape::Flag),
    take("securityContext", Shape::Object(SECURITY)),
    Field {
        name: "restartPolicy",
        rule: Rule::Only(Value::Text("Always"), "an init container runs once, or Always as a sidecar"),
    },
    off("stdinOnce", "standard input stays open; remove it"),
    take("envFrom", Shape::List(&Shape::Object(ENV_FROM))),
    take("livenessProbe", Shape::Object(PROBE)),
    take("readinessProbe", Shape::Object(PROBE)),
    take("startupProbe", Shape::Object(PROBE)),
    take("lifecycle", Shape::Object(LIFECYCLE)),
];

const ENV: &[Field] =
    &[take("name", Shape::Text), take("value", Shape::Text), take("valueFrom", Shape::Object(VALUE_FROM))];

const VALUE_FROM: &[Field] = &[
    take("fieldRef", Shape::Object(FIELD_REF)),
    take("configMapKeyRef", Shape::Object(KEY_REF)),
    take("secretKeyRef", Shape::Object(KEY_REF)),
    take("resourceFieldRef", Shape::Object(RESOURCE_REF)),
    refuse("fileKeyRef", "write the value itself"),
];

const FIELD_REF: &[Field] = &[take("apiVersion", Shape::Text), take("fieldPath", Shape::Text)];

const RESOURCE_REF: &[Field] =
    &[take("containerName", Shape::Text), take("resource", Shape::Text), take("divisor", Shape::Quantity)];

const KEY_REF: &[Field] = &[take("name", Shape::Text), take("key", Shape::Text), take("optional", Shape::Flag)];

const ENV_FROM: &[Field] = &[
    take("prefix", Shape::Text),
    take("configMapRef", Shape::Object(&[take("name", Shape::Text), take("optional", Shape::Flag)])),
    take("secretRef", Shape::Object(&[take("name", Shape::Text), take("optional", Shape::Flag)])),
];

const PORT: &[Field] = &[
    take("name", Shape::Text),
    take("containerPort", Shape::Whole),
    take("protocol", Shape::Text),
    take("hostPort", Shape::Whole),
    take("hostIP", Shape::Text),
];

const DNS: &[Field] = &[
    take("nameservers", TEXTS),
    take("searches", TEXTS),
    take("options", Shape::List(&Shape::Object(&[take("name", Shape::Text), take("value", Shape::Text)]))),
];

const RESOURCES: &[Field] = &[
    take("limits", Shape::Object(LIMITS)),
    take("requests", Shape::Object(LIMITS)),
    refuse("claims", "devices cannot be claimed; remove it"),
];

const LIMITS: &[Field] = &[
    take("cpu", Shape::Quantity),
    take("memory", Shape::Quantity),
    refuse("ephemeral-storage", "the pod's scratch disk has one size for all containers; remove it"),
];

const POD_SECURITY: &[Field] = &[
    take("runAsUser", Shape::Whole),
    take("runAsGroup", Shape::Whole),
    take("runAsNonRoot", Shape::Flag),
    take("supplementalGroups", Shape::List(&Shape::Whole)),
    take("fsGroup", Shape::Whole),
    take("fsGroupChangePolicy", Shape::Text),
    refuse("sysctls", "not set from manifests yet; remove it"),
    take("supplementalGroupsPolicy", Shape::Text),
    take("seccompProfile", Shape::Object(SECCOMP)),
    take("appArmorProfile", Shape::Object(APPARMOR)),
    refuse("seLinuxOptions", NO_LSM),
];

const SECURITY: &[Field] = &[
    take("runAsUser", Shape::Whole),
    take("runAsGroup", Shape::Whole),
    take("runAsNonRoot", Shape::Flag),
    take("readOnlyRootFilesystem", Shape::Flag),
    take("allowPrivilegeEscalation", Shape::Flag),
    take("capabilities", Shape::Object(&[take("add", TEXTS), take("drop", TEXTS)])),
    take("privileged", Shape::Flag),
    take("seccompProfile", Shape::Object(SECCOMP)),
    take("appArmorProfile", Shape::Object(APPARMOR)),
    refuse("seLinuxOptions", NO_LSM),
    take("procMount", Shape::Text),
];

const SECCOMP: &[Field] = &[take("type", Shape::Text), take("localhostProfile", Shape::Text)];

const APPARMOR: &[Field] = &[Field {
    name: "type",
    rule: Rule::Only(Value::Text("Unconfined"), "the guest kernel has no AppArmor; write Unconfined or remove it"),
}];
