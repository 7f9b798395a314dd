//! Plugins that fail, each in its way.

use super::super::PluginFailure;
use super::*;

fn failure(error: &CniError) -> &PluginFailure {
    match error {
        CniError::Plugin(error) => &error.failure,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_done_is_undone_when_a_later_plugin_fails() {
    let fixture = Fixture::new();
    fixture.good_plugins(&["first", "third"]);
    let refuse = r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":100,"msg":"no","details":"way"}'; exit 1; }"#;
    fixture.plugin("second", refuse);
    let error = fixture.cni().add(&network(&["first", "second", "third"]), &attachment()).await.unwrap_err();
    assert_eq!(error.to_string(), "CNI plugin second of network net: ADD failed: it says: no: way (code 100)");
    assert_eq!(fixture.commands(), ["ADD first", "ADD second", "DEL third", "DEL second", "DEL first"]);
    assert!(fixture.cache_files().is_empty());
}

#[tokio::test]
async fn what_cannot_be_undone_is_said_and_remembered() {
    let fixture = Fixture::new();
    let error = fixture.failing_add(r#"echo "{\"code\":100,\"msg\":\"$CNI_COMMAND\"}"; exit 1"#).await.to_string();
    assert!(error.contains("ADD failed: it says: ADD (code 100); and what"), "{error}");
    assert!(error.contains("is not undone: CNI plugin p of network net: DEL failed: it says: DEL"), "{error}");
    // So that a later process finds it.
    assert_eq!(fixture.cni().attachments(Some("c1")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_plugin_that_dies_leaves_its_last_words() {
    let fixture = Fixture::new();
    let body = "[ $CNI_COMMAND = DEL ] && exit; head -c 100000 /dev/zero >&2; printf 'panic:\\tboo\\n' >&2; exit 3";
    let error = fixture.failing_add(body).await.to_string();
    assert!(error.contains("it ended with exit status: 3 and no CNI error") && error.contains("panic: boo"), "{error}");
    assert!(error.len() < 2000 && !error.contains('\0'), "{error}");
}

#[tokio::test]
async fn garbage_is_no_result() {
    let fixture = Fixture::new();
    for body in ["echo hello", "", "printf '\\377'"] {
        let error = fixture.failing_add(body).await.to_string();
        assert!(error.contains("plugin p of network net answered ADD with what is no CNI result"), "{error}");
        assert!(fixture.cache_files().is_empty());
    }
}

#[tokio::test]
async fn a_plugin_without_end_is_stopped() {
    let fixture = Fixture::new();
    let error = fixture.failing_add("[ $CNI_COMMAND = DEL ] || exec cat /dev/zero").await;
    assert!(matches!(failure(&error), PluginFailure::TooMuch { .. }), "{error}");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let fixture = Fixture::new();
    let body = format!(
        "[ $CNI_COMMAND = DEL ] && exit; echo waiting >&2; sleep 1000 & echo $! >{0}; wait",
        fixture.path("child").display()
    );
    fixture.plugin("p", &body);
    let cni = fixture.cni().with_deadline(Duration::from_secs(2));
    let error = cni.add(&network(&["p"]), &attachment()).await.unwrap_err();
    assert!(error.to_string().contains(r#"did not end within 2s and was killed; it wrote "waiting""#), "{error}");
    let child = std::fs::read_to_string(fixture.path("child")).unwrap();
    // Dead, though perhaps not yet reaped by whoever adopted it.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn a_plugin_need_not_read_its_input() {
    let fixture = Fixture::new();
    let mut attached = attachment();
    // Far more than a pipe holds.
    attached.runtime.port_mappings = (1..10_000)
        .map(|port| super::super::PortMapping {
            host_port: port,
            container_port: port,
            protocol: super::super::Protocol::Udp,
            host_ip: None,
        })
        .collect();
    fixture.program("p", GOOD);
    fixture.cni().add(&network(&["p"]), &attached).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_is_no_program_is_named() {
    let fixture = Fixture::new();
    write(&fixture.path("bin/p"), "not executable");
    let error = fixture.cni().add(&network(&["p"]), &attachment()).await.unwrap_err().to_string();
    assert!(error.contains("bin/p cannot be started: Permission denied"), "{error}");
}

#[test]
fn what_is_no_network_is_named() {
    for (text, words) in [
        ("", "is not JSON"),
        ("[]", "it is not an object"),
        (r#"{"cniVersion":"1.0.0"}"#, "name is missing"),
        (r#"{"name":"../n","cniVersion":"1.0.0"}"#, "name is not letters"),
        (r#"{"name":"n","type":"p"}"#, "cniVersion (absent, which means 0.1.0)"),
        (r#"{"name":"n","type":"p","cniVersion":"2.0.0"}"#, "cniVersion 2.0.0 is not one"),
        (r#"{"name":"n","cniVersion":"1.0.0"}"#, "it has no type"),
        (r#"{"name":"n","cniVersion":"1.0.0","plugins":[]}"#, "plugins is empty"),
        (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a/b"}]}"#, r#"plugins[0] has the type "a/b""#),
        (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":".."}]}"#, "names no plugin"),
        (r#"{"name":"n","cniVersion":"1.0.0","disableCheck":1,"plugins":[{"type":"p"}]}"#, "disableCheck is neither"),
    ] {
        let error = Network::parse(text.as_bytes(), "/etc/x").unwrap_err().to_string();
        assert!(error.contains("CNI configuration /etc/x") && error.contains(words), "{error}");
    }
}

#[test]
fn of_several_versions_the_highest_known_is_taken() {
    let text = r#"{"name":"n","cniVersion":"0.3.1","cniVersions":["0.4.0","1.0.0","9.0.0"],"plugins":[{"type":"p"}]}"#;
    assert_eq!(Network::parse(text.as_bytes(), "").unwrap().version(), super::super::Version::V1_0_0);
}
