use super::*;
use crate::pods::directory::tests::{container, pod};

fn ended(code: u32, wanted: Wanted, kind: Kind) -> ContainerRecord {
    let mut container = ContainerRecord { wanted, kind, ..container("c") };
    container.state.exited(code, 0, Timestamp::now(), None);
    container
}

#[test]
fn a_pods_phase_is_what_its_app_containers_came_to() {
    let run = |code| ended(code, Wanted::Run, Kind::App);
    let stopped = ended(143, Wanted::Stop, Kind::App);
    let failed_init = ended(1, Wanted::Run, Kind::Init);
    for (containers, vm_died, expected) in [
        (vec![run(0), run(0)], false, Phase::Succeeded),
        (vec![run(0), run(1)], false, Phase::Failed),
        (vec![failed_init.clone(), run(0)], false, Phase::Succeeded),
        (vec![failed_init, container("never-started")], false, Phase::Failed),
        (vec![stopped.clone()], false, Phase::Stopped),
        (vec![stopped.clone()], true, Phase::Stopped),
        (vec![stopped, run(0)], false, Phase::Failed),
        (vec![run(0)], true, Phase::Failed),
    ] {
        assert_eq!(phase_of(&pod("p", containers), vm_died), expected);
    }
}

#[test]
fn a_failure_report_has_text_hint_and_exit_code() {
    use error::Advise as _;
    let error = Err::<(), _>(anyhow::anyhow!("no such file")).exit_code(127).hint("look").unwrap_err();
    let expected =
        Report::Failed { text: "no such file".into(), hint: Some("look".into()), exit_code: 127, keep: false };
    assert_eq!(failed(&error, false), expected);
}
