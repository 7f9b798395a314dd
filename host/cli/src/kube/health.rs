//! A container's hooks and probes.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe as ProbeSpec, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::convert::Problems;
use crate::pods::plan::{Action, HealthPlan, HttpGet, Kind, Probe};

pub(super) fn health(container: &Container, kind: Kind, path: &str, problems: &mut Problems) -> HealthPlan {
    let mut fields = Fields { container, problems };
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    if kind == Kind::Init {
        let set = probes.iter().filter(|(_, probe)| probe.is_some()).map(|(name, _)| *name);
        let hooks = container.lifecycle.as_ref().filter(|l| l.post_start.is_some() || l.pre_stop.is_some());
        for name in set.chain(hooks.map(|_| "lifecycle")) {
            let text = "an init container runs to its end; only one with restartPolicy: Always (a sidecar) takes it";
            fields.problems.add(&format!("{path}.{name}"), text);
        }
        return HealthPlan::default();
    }
    let [liveness, readiness, startup] =
        probes.map(|(name, probe)| fields.probe(probe.as_ref()?, name, &format!("{path}.{name}")));
    let lifecycle = container.lifecycle.as_ref();
    let mut hook =
        |name: &str, hook: Option<&LifecycleHandler>| fields.hook(hook?, &format!("{path}.lifecycle.{name}"));
    HealthPlan {
        post_start: hook("postStart", lifecycle.and_then(|l| l.post_start.as_ref())),
        pre_stop: hook("preStop", lifecycle.and_then(|l| l.pre_stop.as_ref())),
        startup,
        readiness,
        liveness,
    }
}

struct Fields<'a> {
    container: &'a Container,
    problems: &'a mut Problems,
}

impl Fields<'_> {
    fn probe(&mut self, probe: &ProbeSpec, name: &str, path: &str) -> Option<Probe> {
        let action = self.one_of(
            path,
            "exec, httpGet, tcpSocket, grpc",
            [
                probe.exec.as_ref().map(Wanted::Exec),
                probe.http_get.as_ref().map(Wanted::Http),
                probe.tcp_socket.as_ref().map(Wanted::Tcp),
                probe.grpc.as_ref().map(Wanted::Grpc),
            ],
        )?;
        let mut number = |field: &str, value: Option<i32>, default: u32, least: u32| match value {
            // Kubernetes takes 0 for "not said".
            None | Some(0) => default,
            Some(value) => u32::try_from(value).ok().filter(|value| *value >= least).unwrap_or_else(|| {
                self.problems.add(&format!("{path}.{field}"), format!("{value} is less than {least}"));
                default
            }),
        };
        let plan = Probe {
            action,
            initial_delay: number("initialDelaySeconds", probe.initial_delay_seconds, 0, 0),
            period: number("periodSeconds", probe.period_seconds, 10, 1),
            timeout: number("timeoutSeconds", probe.timeout_seconds, 1, 1),
            success_threshold: number("successThreshold", probe.success_threshold, 1, 1),
            failure_threshold: number("failureThreshold", probe.failure_threshold, 3, 1),
            grace: match probe.termination_grace_period_seconds {
                None => None,
                Some(_) if name == "readinessProbe" => {
                    let text = "a readiness probe ends nothing; remove it";
                    self.problems.add(&format!("{path}.terminationGracePeriodSeconds"), text);
                    None
                }
                Some(seconds) => {
                    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                    if seconds.is_none() {
                        self.problems.add(&format!("{path}.terminationGracePeriodSeconds"), "must be more than 0");
                    }
                    seconds
                }
            },
        };
        if name != "readinessProbe" && plan.success_threshold != 1 {
            self.problems.add(&format!("{path}.successThreshold"), format!("must be 1 in a {name}"));
        }
        Some(plan)
    }

    fn hook(&mut self, hook: &LifecycleHandler, path: &str) -> Option<Action> {
        let wanted = [
            hook.exec.as_ref().map(Wanted::Exec),
            hook.http_get.as_ref().map(Wanted::Http),
            hook.sleep.as_ref().map(|sleep| Wanted::Sleep(sleep.seconds)),
            None,
        ];
        self.one_of(path, "exec, httpGet, sleep", wanted)
    }

    fn one_of(&mut self, path: &str, names: &str, wanted: [Option<Wanted<'_>>; 4]) -> Option<Action> {
        let mut wanted = wanted.into_iter().flatten();
        match (wanted.next(), wanted.next()) {
            (Some(one), None) => self.action(one, path),
            (None, _) => {
                self.problems.add(path, format!("says nothing to do: give one of {names}"));
                None
            }
            (Some(_), Some(_)) => {
                self.problems.add(path, format!("says several things to do: give one of {names}"));
                None
            }
        }
    }

    fn action(&mut self, wanted: Wanted<'_>, path: &str) -> Option<Action> {
        match wanted {
            Wanted::Exec(exec) => {
                let command = exec.command.clone().unwrap_or_default();
                if command.first().is_none_or(String::is_empty) {
                    self.problems.add(&format!("{path}.exec.command"), "names no command");
                    return None;
                }
                Some(Action::Exec { command })
            }
            Wanted::Http(get) => self.http(get, &format!("{path}.httpGet")),
            Wanted::Tcp(tcp) => {
                let port = self.port(&tcp.port, &format!("{path}.tcpSocket.port"))?;
                Some(Action::Tcp { host: named(tcp.host.as_ref()), port })
            }
            Wanted::Grpc(grpc) => {
                let port = self.port(&IntOrString::Int(grpc.port), &format!("{path}.grpc.port"))?;
                Some(Action::Grpc { port, service: grpc.service.clone().unwrap_or_default() })
            }
            Wanted::Sleep(seconds) => {
                let seconds = u64::try_from(seconds).ok();
                if seconds.is_none() {
                    self.problems.add(&format!("{path}.sleep.seconds"), "must not be negative");
                }
                Some(Action::Sleep { seconds: seconds? })
            }
        }
    }

    fn http(&mut self, get: &HTTPGetAction, path: &str) -> Option<Action> {
        let port = self.port(&get.port, &format!("{path}.port"))?;
        let https = match get.scheme.as_deref() {
            None | Some("" | "HTTP") => false,
            Some("HTTPS") => true,
            Some(other) => {
                self.problems.add(&format!("{path}.scheme"), format!("\"{other}\" is neither HTTP nor HTTPS"));
                return None;
            }
        };
        let mut headers = Vec::new();
        for (index, header) in get.http_headers.iter().flatten().enumerate() {
            let named = reqwest::header::HeaderName::try_from(&header.name).is_ok();
            if !named || reqwest::header::HeaderValue::try_from(&header.value).is_err() {
                let text = format!("\"{}\" with this value is no header", header.name);
                self.problems.add(&format!("{path}.httpHeaders[{index}]"), text);
            }
            headers.push((header.name.clone(), header.value.clone()));
        }
        let path = get.path.clone().unwrap_or_default();
        Some(Action::Http(HttpGet { https, host: named(get.host.as_ref()), port, path, headers }))
    }

    /// A number, or the name of one of the container's ports.
    fn port(&mut self, port: &IntOrString, path: &str) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let ports = self.container.ports.iter().flatten();
                let found =
                    ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port).next();
                let Some(number) = found.or_else(|| name.parse().ok()) else {
                    self.problems.add(path, format!("the container has no port named \"{name}\""));
                    return None;
                };
                number
            }
        };
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.problems.add(path, format!("{number} is no port number (1 to 65535)"));
        }
        port
    }
}

enum Wanted<'a> {
    Exec(&'a ExecAction),
    Http(&'a HTTPGetAction),
    Tcp(&'a TCPSocketAction),
    Grpc(&'a GRPCAction),
    Sleep(i64),
}

fn named(host: Option<&String>) -> Option<String> {
    host.filter(|host| !host.is_empty()).cloned()
}
