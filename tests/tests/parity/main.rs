//! What a container sees is the same under runc and under Husk, or a row of `docs/differences.md` says why not.
//!
//! A test is a group of cases, written in a file of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use husk_tests::differences::Differences;
use husk_tests::parity::{Case, HuskPod, Root, Runc};

/// Those whose names begin with this, to try some alone: `HUSK_PARITY_CASES`.
fn chosen(cases: Vec<Case>) -> Vec<Case> {
    let filter = std::env::var("HUSK_PARITY_CASES").unwrap_or_default();
    cases.into_iter().filter(|case| case.name.starts_with(&filter)).collect()
}

/// Runs every case under both.
fn compare(group: &str, cases: &str) {
    let differences = Differences::parse(include_str!("../../../docs/differences.md"));
    let root = Root::new();
    let (runc, husk) = (Runc::new(&root), HuskPod::new(&root));
    let (mut expected, mut seen) = (String::new(), String::new());
    for case in chosen(Case::list(cases)) {
        let reference = runc.run(&case);
        let outcome = husk.run(&case);
        if reference.code.is_none() != outcome.code.is_none() {
            println!("{}: runc {reference:?}, Husk {outcome:?}", case.name);
        }
        expected += &(case.lines(&reference) + "\n");
        seen += &(case.lines(&outcome) + "\n");
    }
    let verdict = differences.compare(group, &expected, &seen);
    println!("{}", verdict.tell(group));
    assert!(verdict.is_good(), "{}", verdict.tell(group));
}

#[test]
fn a_process_is_who_and_where_its_spec_says() {
    compare("identity", include_str!("identity.yaml"));
}

#[test]
fn limits_are_set_and_hold() {
    compare("limits", include_str!("limits.yaml"));
}

#[test]
fn files_and_devices_are_where_the_spec_puts_them() {
    compare("mounts", include_str!("mounts.yaml"));
}

#[test]
fn privileges_are_those_of_the_spec() {
    compare("security", include_str!("security.yaml"));
}

#[test]
fn system_calls_are_those_of_the_filter() {
    compare("seccomp", include_str!("seccomp.yaml"));
}

#[test]
fn a_user_namespace_has_ids_and_powers_of_its_own() {
    compare("users", include_str!("users.yaml"));
}

#[test]
fn processes_start_end_and_are_reaped() {
    compare("processes", include_str!("processes.yaml"));
}
