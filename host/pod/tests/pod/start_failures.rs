//! Starts that fail at every step: a typed error, and nothing left.

use std::os::unix::fs::PermissionsExt;

use husk_pod::{AgentError, ErrorKind, Pod, StartError, VmEndReason, VmmError};

use crate::fixture::{Fixture, SHORT};

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_dies_at_any_step_leaves_nothing() {
    for step in ["boot", "hello", "resume", "plug", "plug-device", "mount-scratch"] {
        let fixture = Fixture::new(&format!("die={step}"));
        let error = fixture.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{step}: {error}");
        assert!(error.to_string().contains("ns/p1") && error.to_string().contains("exit status: 3"), "{step}: {error}");
        fixture.assert_nothing_is_left(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_refused_leaves_nothing() {
    for step in ["boot", "hello", "resume", "plug", "plug-device", "mount-scratch"] {
        let fixture = Fixture::new(&format!("refuse={step}"));
        let error = fixture.start().await.unwrap_err().to_string();
        assert!(error.contains("refused"), "{step}: {error}");
        assert!(!error.contains(['\x1b', '\n']), "{step}: {error:?}");
        assert!(error.len() < 1000, "{step}: {} bytes", error.len());
        fixture.assert_nothing_is_left(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_hangs_meets_its_deadline_and_leaves_nothing() {
    for step in ["boot", "hello", "resume", "plug", "plug-device", "mount-scratch"] {
        let mut fixture = Fixture::new(&format!("hang={step}"));
        match step {
            "boot" | "hello" => fixture.deadlines.boot = SHORT,
            "plug" => fixture.deadlines.vmm = SHORT,
            _ => fixture.deadlines.agent = SHORT,
        }
        let error = fixture.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{step}: {error}");
        fixture.assert_nothing_is_left(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_comes_meets_the_boot_deadline() {
    for behaviour in ["never-ready", "nobody-listens"] {
        let mut fixture = Fixture::new(behaviour);
        fixture.deadlines.boot = SHORT;
        let error = fixture.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{behaviour}: {error}");
        let shows_console = error.to_string().contains("init begins");
        assert_eq!(shows_console, behaviour == "never-ready", "{error}");
        fixture.assert_nothing_is_left(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_panic_is_shown_with_the_last_console_lines() {
    let fixture = Fixture::new("panic");
    let error = fixture.start().await.unwrap_err();
    let StartError::Vmm(VmmError::Ended(end)) = &error else { panic!("{error}") };
    assert_eq!(end.reason, VmEndReason::Vm(husk_pod::ExitReason::Reset));
    let message = error.to_string();
    assert!(message.contains("Kernel panic - not syncing: No working init found."), "{message}");
    assert!(message.contains("\\u{1b}[2Jinit begins") && !message.contains('\x1b'), "{message}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_the_agents_protocol_is_an_error() {
    let mut fixture = Fixture::new("garbage-agent");
    fixture.deadlines.boot = SHORT;
    let error = fixture.start().await.unwrap_err();
    assert!(matches!(error, StartError::Agent(_)), "{error}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_control_socket_ends_the_vm() {
    let mut fixture = Fixture::new("garbage=boot outlive-socket");
    fixture.deadlines.kill = SHORT;
    let error = fixture.start().await.unwrap_err();
    assert!(error.to_string().contains("control socket"), "{error}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_version_is_refused() {
    let fixture = Fixture::new("old-agent");
    let error = fixture.start().await.unwrap_err();
    assert!(matches!(&error, StartError::Agent(AgentError::Version { theirs, .. }) if theirs == "0.9"), "{error}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_kernel_vmm_or_kvm_is_named() {
    for (file, kind) in
        [("vmlinux", ErrorKind::Internal), ("vmm", ErrorKind::Internal), ("kvm", ErrorKind::FailedPrecondition)]
    {
        let fixture = Fixture::new("");
        std::fs::remove_file(fixture.path(file)).unwrap();
        let error = fixture.start().await.unwrap_err();
        assert!(error.to_string().contains(&fixture.path(file).display().to_string()), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        fixture.assert_nothing_is_left(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_cannot_be_executed_is_an_error() {
    let fixture = Fixture::new("");
    std::fs::remove_file(fixture.path("vmm")).unwrap();
    std::fs::write(fixture.path("vmm"), "this is no program").unwrap();
    std::fs::set_permissions(fixture.path("vmm"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = fixture.start().await.unwrap_err();
    assert!(matches!(error, StartError::Vmm(VmmError::Spawn { .. })), "{error}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_spec_or_id_is_refused_before_anything_exists() {
    let fixture = Fixture::new("");
    let mut config = fixture.config();
    config.id = "../p".into();
    let error = Pod::start(config).await.unwrap_err();
    assert!(matches!(error, StartError::BadId { .. }), "{error}");
    let mut config = fixture.config();
    config.spec.set_domainname(Some("with space".into()));
    let error = Pod::start(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    fixture.assert_nothing_is_left(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_keeps_what_others_put_into_the_directory() {
    let fixture = Fixture::new("refuse=resume");
    let socket = fixture.config().state_dir.join("task.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    std::fs::write(&socket, "").unwrap();
    fixture.start().await.unwrap_err();
    assert!(socket.exists());
    fixture.assert_nothing_is_left(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_start_is_undone() {
    let fixture = Fixture::new("hang=resume");
    let started = tokio::spawn(Pod::start(fixture.config()));
    crate::fixture::wait_until("the VMM runs", || fixture.vmm_runs()).await;
    started.abort();
    assert!(started.await.unwrap_err().is_cancelled());
    fixture.assert_nothing_is_left(true).await;
}
