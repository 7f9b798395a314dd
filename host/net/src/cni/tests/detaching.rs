//! DEL, and the cache that it works from.

use base64::Engine;

use super::*;

#[tokio::test]
async fn del_runs_in_reverse_with_the_cached_result_and_again() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "second"]);
    let network = network(&["first", "second"]);
    fixture.cni().add(&network, &attachment()).await.unwrap();
    fixture.calls();
    let _ = fixture.cni().del(&network, &attachment()).await.unwrap();
    assert_eq!(fixture.commands(), ["DEL second", "DEL first"]);
    assert_eq!(fixture.input("first", "DEL")["prevResult"]["ips"][0]["address"], "10.1.0.2/16");
    assert!(fixture.cache_files().is_empty());
    let _ = fixture.cni().del(&network, &attachment()).await.unwrap();
    assert_eq!(fixture.commands(), ["DEL second", "DEL first"]);
    assert!(fixture.input("first", "DEL").get("prevResult").is_none());
}

#[tokio::test]
async fn another_process_undoes_it_with_the_configuration_of_its_add() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["old", "new"]);
    let mut attached = attachment();
    attached.runtime.mac = Some("02:00:00:00:00:01".into());
    fixture.cni().add(&network(&["old"]), &attached).await.unwrap();
    fixture.calls();
    // The administrator changed the network meanwhile, and the process knows the attachment by its names only.
    let named = Attachment { netns: None, args: Vec::new(), ..attachment() };
    let _ = fixture.cni().del(&network(&["new"]), &named).await.unwrap();
    let args = "args=IgnoreUnknown=1;K8S_POD_NAME=web";
    assert_eq!(fixture.calls(), [format!("DEL old id=c1 netns=/proc/self/ns/net if=eth0 {args}")]);
}

#[tokio::test]
async fn the_cache_tells_what_is_attached_in_libcnis_format() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    let mut attached = attachment();
    attached.runtime.mac = Some("02:00:00:00:00:01".into());
    fixture.cni().add(&network(&["p"]), &attached).await.unwrap();
    assert_eq!(fixture.cache_files(), ["net-c1-eth0"]);
    let text = std::fs::read(fixture.path("results/net-c1-eth0")).unwrap();
    let info: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&info["kind"], &info["containerId"], &info["ifName"]),
        (&"cniCacheV1".into(), &"c1".into(), &"eth0".into())
    );
    assert_eq!((&info["networkName"], &info["netns"]), (&"net".into(), &"/proc/self/ns/net".into()));
    assert_eq!(info["cniArgs"][1], serde_json::json!(["K8S_POD_NAME", "web"]));
    assert_eq!(info["capabilityArgs"]["mac"], "02:00:00:00:00:01");
    assert_eq!(info["result"]["ips"][0]["address"], "10.1.0.2/16");
    let config = base64::engine::general_purpose::STANDARD.decode(info["config"].as_str().unwrap()).unwrap();
    assert_eq!(Network::parse(&config, "").unwrap(), network(&["p"]));
    let cni = fixture.cni();
    let found = cni.attachments(Some("c1")).unwrap();
    assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), [(network(&["p"]), attached)]);
    assert!(cni.attachments(Some("c2")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_not_named_to_plugins() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    // What remains of a named namespace after a reboot.
    write(&fixture.path("netns"), "");
    for gone in [fixture.path("nonexistent"), fixture.path("netns")] {
        let attached = Attachment { netns: Some(gone), ..attachment() };
        fixture.cni().add(&network(&["p"]), &attached).await.unwrap();
        fixture.calls();
        let _ = fixture.cni().del(&network(&["p"]), &attached).await.unwrap();
        assert!(fixture.calls()[0].contains(" netns= if=eth0 "));
    }
}

#[tokio::test]
async fn a_vanished_plugin_is_reported_and_keeps_nobody_from_the_rest() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "second"]);
    let network = network(&["first", "second"]);
    fixture.cni().add(&network, &attachment()).await.unwrap();
    fixture.calls();
    std::fs::remove_file(fixture.path("bin/second")).unwrap();
    let deleted = fixture.cni().del(&network, &attachment()).await.unwrap();
    assert_eq!(deleted.vanished, ["second"]);
    assert_eq!(fixture.commands(), ["DEL first"]);
    assert!(fixture.cache_files().is_empty());
}

#[tokio::test]
async fn a_failed_del_keeps_the_cache_for_the_next() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "second"]);
    let network = network(&["first", "second"]);
    fixture.cni().add(&network, &attachment()).await.unwrap();
    fixture.plugin("second", r#"echo '{"code":11,"msg":"busy"}'; exit 1"#);
    let error = fixture.cni().del(&network, &attachment()).await.unwrap_err().to_string();
    assert_eq!(error, "CNI plugin second of network net: DEL failed: it says: busy (code 11: try again later)");
    assert_eq!(fixture.cache_files(), ["net-c1-eth0"]);
    fixture.good_plugins(&["second"]);
    let _ = fixture.cni().del(&network, &attachment()).await.unwrap();
    assert!(fixture.cache_files().is_empty());
}

#[tokio::test]
async fn a_damaged_cache_is_named_and_does_not_forbid_del() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["p"]);
    std::fs::create_dir(fixture.path("results")).unwrap();
    for damage in ["", "{}", r#"{"kind":"other","containerId":"c1","ifName":"eth0","networkName":"net","config":""}"#] {
        write(&fixture.path("results/net-c1-eth0"), damage);
        let error = fixture.cni().add(&network(&["p"]), &attachment()).await.unwrap_err().to_string();
        assert!(error.contains("results/net-c1-eth0 is damaged"), "{error}");
        assert!(fixture.cni().attachments(None).unwrap().next().unwrap().is_err());
        let _ = fixture.cni().del(&network(&["p"]), &attachment()).await.unwrap();
        assert!(fixture.cache_files().is_empty());
    }
}
