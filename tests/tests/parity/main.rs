//! What a container sees is the same under runc and under Husk, or a row of `docs/differences.md` says why not.
//!
//! A test is a group of cases (see `husk_tests::parity`); all groups together say at the end what they came to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod identity;
mod limits;
mod mounts;
mod processes;
mod security;

use husk_tests::differences::Differences;
use husk_tests::parity::{Case, HuskPod, Root, Runc};

/// Cases whose names begin with this alone are run, to try some: `HUSK_PARITY_CASES`.
fn chosen(cases: Vec<Case>) -> Vec<Case> {
    let filter = std::env::var("HUSK_PARITY_CASES").unwrap_or_default();
    cases.into_iter().filter(|case| case.name.starts_with(&filter)).collect()
}

/// Runs every case under both; those that are `alone` as pods of their own.
fn compare(group: &str, cases: Vec<Case>, alone: Vec<Case>) {
    let differences = Differences::parse(include_str!("../../../docs/differences.md"));
    let root = Root::new();
    let (runc, husk) = (Runc::new(&root), HuskPod::new(&root));
    let (mut expected, mut seen) = (String::new(), String::new());
    for (cases, alone) in [(chosen(cases), false), (chosen(alone), true)] {
        for case in cases {
            let reference = runc.run(&case);
            let outcome = if alone { husk.run_alone(&case) } else { husk.run(&case) };
            if reference.code.is_none() != outcome.code.is_none() {
                println!("{}: runc {reference:?}, Husk {outcome:?}", case.name);
            }
            expected += &(case.lines(&reference) + "\n");
            seen += &(case.lines(&outcome) + "\n");
        }
    }
    let verdict = differences.compare(group, &expected, &seen);
    println!("{}", verdict.tell(group));
    assert!(verdict.is_good(), "{}", verdict.tell(group));
}

#[test]
fn a_process_is_who_and_where_its_spec_says() {
    compare("identity", identity::cases(), identity::alone());
}

#[test]
fn limits_are_set_and_hold() {
    compare("limits", limits::cases(), limits::alone());
}

#[test]
fn files_and_devices_are_where_the_spec_puts_them() {
    compare("mounts", mounts::cases(), Vec::new());
}

#[test]
fn privileges_are_those_of_the_spec() {
    compare("security", security::cases(), Vec::new());
}

#[test]
fn processes_start_end_and_are_reaped() {
    compare("processes", processes::cases(), Vec::new());
}
