//! Volumes and their mounts.

use super::{FIELD_REF, Field, NO_TOKENS, RESOURCE_REF, Shape, refuse, take};

const NO_NETWORK_STORAGE: &str =
    "volumes of storage systems are not mounted here; mount it on the host and use a hostPath";
const NO_CLUSTER_STORAGE: &str = "there is no cluster that would provide it; use a hostPath or a persistentVolumeClaim";

pub(super) const VOLUME_MOUNT: &[Field] = &[
    take("name", Shape::Text),
    take("mountPath", Shape::Text),
    take("readOnly", Shape::Flag),
    take("recursiveReadOnly", Shape::Text),
    take("subPath", Shape::Text),
    take("subPathExpr", Shape::Text),
    take("mountPropagation", Shape::Text),
];

pub(super) const VOLUME_DEVICE: &[Field] = &[take("name", Shape::Text), take("devicePath", Shape::Text)];

pub(super) const VOLUME: &[Field] = &[
    take("name", Shape::Text),
    take("emptyDir", Shape::Object(&[take("medium", Shape::Text), take("sizeLimit", Shape::Quantity)])),
    take("hostPath", Shape::Object(&[take("path", Shape::Text), take("type", Shape::Text)])),
    take(
        "configMap",
        Shape::Object(&[take("name", Shape::Text), take("items", ITEMS), OPTIONAL, take("defaultMode", Shape::Whole)]),
    ),
    take(
        "secret",
        Shape::Object(&[
            take("secretName", Shape::Text),
            take("items", ITEMS),
            OPTIONAL,
            take("defaultMode", Shape::Whole),
        ]),
    ),
    take(
        "projected",
        Shape::Object(&[take("sources", Shape::List(&Shape::Object(PROJECTION))), take("defaultMode", Shape::Whole)]),
    ),
    take(
        "downwardAPI",
        Shape::Object(&[take("items", Shape::List(&Shape::Object(FILE))), take("defaultMode", Shape::Whole)]),
    ),
    take("image", Shape::Object(&[take("reference", Shape::Text), take("pullPolicy", Shape::Text)])),
    take("persistentVolumeClaim", Shape::Object(&[take("claimName", Shape::Text), take("readOnly", Shape::Flag)])),
    refuse("ephemeral", NO_CLUSTER_STORAGE),
    refuse("csi", NO_CLUSTER_STORAGE),
    refuse("nfs", NO_NETWORK_STORAGE),
    refuse("iscsi", NO_NETWORK_STORAGE),
    refuse("cephfs", NO_NETWORK_STORAGE),
    refuse("rbd", NO_NETWORK_STORAGE),
];

const OPTIONAL: Field = take("optional", Shape::Flag);

const ITEMS: Shape =
    Shape::List(&Shape::Object(&[take("key", Shape::Text), take("path", Shape::Text), take("mode", Shape::Whole)]));

const FILE: &[Field] = &[
    take("path", Shape::Text),
    take("fieldRef", Shape::Object(FIELD_REF)),
    take("resourceFieldRef", Shape::Object(RESOURCE_REF)),
    take("mode", Shape::Whole),
];

const PROJECTION: &[Field] = &[
    take("configMap", Shape::Object(&[take("name", Shape::Text), take("items", ITEMS), OPTIONAL])),
    take("secret", Shape::Object(&[take("name", Shape::Text), take("items", ITEMS), OPTIONAL])),
    take("downwardAPI", Shape::Object(&[take("items", Shape::List(&Shape::Object(FILE)))])),
    refuse("serviceAccountToken", NO_TOKENS),
    refuse("clusterTrustBundle", NO_TOKENS),
    refuse("podCertificate", NO_TOKENS),
];
