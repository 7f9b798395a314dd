//! Hooks and probes.

use super::{Field, Shape, TEXTS, refuse, take};

pub(super) const LIFECYCLE: &[Field] =
    &[take("postStart", Shape::Object(HOOK)), take("preStop", Shape::Object(HOOK)), take("stopSignal", Shape::Text)];

const HOOK: &[Field] = &[
    take("exec", Shape::Object(EXEC)),
    take("httpGet", Shape::Object(HTTP_GET)),
    take("sleep", Shape::Object(&[take("seconds", Shape::Whole)])),
    refuse("tcpSocket", "Kubernetes ignores it in hooks; use exec or httpGet"),
];

pub(super) const PROBE: &[Field] = &[
    take("exec", Shape::Object(EXEC)),
    take("httpGet", Shape::Object(HTTP_GET)),
    take("tcpSocket", Shape::Object(&[take("host", Shape::Text), take("port", Shape::WholeOrText)])),
    take("grpc", Shape::Object(&[take("port", Shape::Whole), take("service", Shape::Text)])),
    take("initialDelaySeconds", Shape::Whole),
    take("periodSeconds", Shape::Whole),
    take("timeoutSeconds", Shape::Whole),
    take("successThreshold", Shape::Whole),
    take("failureThreshold", Shape::Whole),
    take("terminationGracePeriodSeconds", Shape::Whole),
];

const EXEC: &[Field] = &[take("command", TEXTS)];

const HTTP_GET: &[Field] = &[
    take("host", Shape::Text),
    take("httpHeaders", Shape::List(&Shape::Object(&[take("name", Shape::Text), take("value", Shape::Text)]))),
    take("path", Shape::Text),
    take("port", Shape::WholeOrText),
    take("scheme", Shape::Text),
];
