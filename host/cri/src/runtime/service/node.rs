//! What the node is asked about itself.

use std::collections::HashMap;

use super::RuntimeServer;
use crate::api::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeHandlerFeatures, RuntimeStatus, StatusResponse, VersionResponse,
};
use crate::config;

pub(super) fn version() -> VersionResponse {
    VersionResponse {
        // Of kubelet's runtime API, which has never been another.
        version: "0.1.0".into(),
        runtime_name: "husk".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: "v1".into(),
    }
}

impl RuntimeServer {
    pub(super) async fn node_status(&self, verbose: bool) -> StatusResponse {
        let ready = RuntimeCondition { r#type: "RuntimeReady".into(), status: true, ..RuntimeCondition::default() };
        let problem = self.engine.network_problem().await;
        let network = RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: problem.is_none(),
            reason: problem.as_ref().map(|_| "NetworkPluginNotReady".to_owned()).unwrap_or_default(),
            message: problem.unwrap_or_default(),
        };
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true };
        let handlers = self.engine.config.handler_names().into_iter();
        StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![ready, network] }),
            info: if verbose { self.information() } else { HashMap::new() },
            runtime_handlers: handlers
                .map(|name| RuntimeHandler { name: name.to_owned(), features: Some(features) })
                .collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: true,
            }),
        }
    }

    fn information(&self) -> HashMap<String, String> {
        let config = &self.engine.config;
        let text = serde_json::json!({
            "root": config.root,
            "run": config.run,
            "cniConfigDir": config.cni_config_dir,
            "cniPluginDirs": config.cni_plugin_dirs,
            "registryConfigDir": config.registry_config_dir,
            "handlers": config.handler_names(),
            "sandboxes": self.engine.sandboxes.all().len(),
            "containers": self.engine.containers.all().len(),
        });
        HashMap::from([("config".to_owned(), text.to_string())])
    }

    pub(super) fn runtime_configuration(&self) -> RuntimeConfigResponse {
        let driver = match self.engine.config.cgroup_driver {
            config::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
            config::CgroupDriver::Systemd => CgroupDriver::Systemd,
        };
        RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) }
    }
}
