//! ADD, CHECK and readiness.

use serde_json::json;

use super::super::{Bandwidth, Capability, PortMapping, Protocol};
use super::*;

#[tokio::test]
async fn each_plugin_gets_the_result_of_the_one_before_it() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "second"]);
    let result = fixture.cni().add(&network(&["first", "second"]), &attachment()).await.unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.1.0.2/16");
    let call = "id=c1 netns=/proc/self/ns/net if=eth0 args=IgnoreUnknown=1;K8S_POD_NAME=web";
    assert_eq!(fixture.calls(), [format!("ADD first {call}"), format!("ADD second {call}")]);
    let first = fixture.input("first", "ADD");
    assert_eq!((&first["name"], &first["cniVersion"], &first["own"]), (&json!("net"), &json!("1.0.0"), &json!(1)));
    assert!(first.get("prevResult").is_none());
    assert_eq!(fixture.input("second", "ADD")["prevResult"]["ips"][0]["address"], "10.1.0.2/16");
}

#[tokio::test]
async fn only_what_a_plugin_declares_is_passed_to_it() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    let mut attachment = attachment();
    attachment.runtime.mac = Some("02:00:00:00:00:01".into());
    attachment.runtime.bandwidth = Some(Bandwidth { ingress_rate: 1000, ..Bandwidth::default() });
    let port = |host_ip| PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip };
    attachment.runtime.port_mappings = vec![port(None), port(Some([127, 0, 0, 1].into()))];
    fixture.cni().add(&network(&["p"]), &attachment).await.unwrap();
    let first = json!({ "hostPort": 80, "containerPort": 8080, "protocol": "tcp" });
    let second = json!({ "hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1" });
    assert_eq!(fixture.input("p", "ADD")["runtimeConfig"], json!({ "portMappings": [first, second] }));
    assert!(network(&["p"]).declares(Capability::PortMappings) && !network(&["p"]).declares(Capability::Mac));
}

#[tokio::test]
async fn an_attachment_is_not_made_twice() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    fixture.cni().add(&network(&["p"]), &attachment()).await.unwrap();
    let error = fixture.cni().add(&network(&["p"]), &attachment()).await.unwrap_err().to_string();
    assert!(error.contains("c1 is attached to network net as eth0 already; delete that first"), "{error}");
    assert_eq!(fixture.commands(), ["ADD p"]);
}

#[tokio::test]
async fn a_name_that_would_be_a_path_reaches_no_plugin() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    let bad: [fn(&mut Attachment); 6] = [
        |attachment| attachment.container_id = "../c1".into(),
        |attachment| attachment.container_id = String::new(),
        |attachment| attachment.ifname = "a/b".into(),
        |attachment| attachment.ifname = "sixteen-letters-".into(),
        |attachment| attachment.args.push(("K".into(), "1;CNI_NETNS=2".into())),
        |attachment| attachment.netns = None,
    ];
    for spoil in bad {
        let mut attachment = attachment();
        spoil(&mut attachment);
        let error = fixture.cni().add(&network(&["p"]), &attachment).await.unwrap_err();
        assert!(matches!(error, CniError::Attachment(_)), "{error}");
    }
    assert!(fixture.calls().is_empty() && fixture.cache_files().is_empty());
}

#[tokio::test]
async fn check_runs_the_plugins_with_the_cached_result() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "second"]);
    let network = network(&["first", "second"]);
    let error = fixture.cni().check(&network, &attachment()).await.unwrap_err().to_string();
    assert!(error.contains("c1 is not attached to network net as eth0"), "{error}");
    fixture.cni().add(&network, &attachment()).await.unwrap();
    fixture.cni().check(&network, &attachment()).await.unwrap();
    assert_eq!(fixture.commands(), ["ADD first", "ADD second", "CHECK first", "CHECK second"]);
    assert_eq!(fixture.input("first", "CHECK")["prevResult"]["ips"][0]["address"], "10.1.0.2/16");
}

#[tokio::test]
async fn a_network_may_forbid_check_or_be_too_old_for_it() {
    let fixture = Fixture::new();
    fixture.plugin("p", r#"echo '{"cniVersion":"0.3.1"}'"#);
    for (fields, expected) in
        [(r#""1.0.0","disableCheck":true"#, None), (r#""0.3.1""#, Some("CHECK came with cniVersion 0.4.0"))]
    {
        let text = format!(r#"{{"cniVersion":{fields},"name":"net","plugins":[{{"type":"p"}}]}}"#);
        let network = Network::parse(text.as_bytes(), "of the test").unwrap();
        fixture.cni().add(&network, &attachment()).await.unwrap();
        match (fixture.cni().check(&network, &attachment()).await, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
        assert_eq!(fixture.cni().del(&network, &attachment()).await.unwrap().vanished.len(), 0);
        assert_eq!(fixture.commands(), ["ADD p", "DEL p"]);
    }
}

#[tokio::test]
async fn a_network_is_ready_when_its_plugins_are() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    fixture.cni().ready(&network(&["p"])).await.unwrap();
    let newer = r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"p"}]}"#;
    let newer = Network::parse(newer.as_bytes(), "of the test").unwrap();
    let error = fixture.cni().ready(&newer).await.unwrap_err().to_string();
    assert!(error.contains("plugin p of network net speaks CNI 0.4.0, 1.0.0 and the network wants 1.1.0"), "{error}");
    let status = r#"case $CNI_COMMAND in
        VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
        STATUS) echo '{"cniVersion":"1.1.0","code":50,"msg":"no daemon"}'; exit 1 ;;
    esac"#;
    fixture.plugin("p", status);
    let error = fixture.cni().ready(&newer).await.unwrap_err().to_string();
    assert!(
        error.contains("STATUS failed: it says: no daemon (code 50: the network takes no new containers"),
        "{error}"
    );
    let error = fixture.cni().ready(&network(&["q"])).await.unwrap_err().to_string();
    assert!(error.contains("plugin q of network net: VERSION failed: it is not in /nonexistent/bin, "), "{error}");
}
