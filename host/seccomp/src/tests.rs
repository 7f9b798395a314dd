//! The program against its meaning: an interpreter of the program, and a plain evaluation of the profile that knows
//! nothing of ranges, halves and jumps.

use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp, LinuxSeccompArg};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bpf::{Verdict, op};
use crate::compile::{SKIPPED, X32, X86_64};
use crate::policy::number;
use crate::{Filter, ProfileError, compile, runtime_default};

#[derive(Clone, Copy, Debug)]
struct Call {
    architecture: u32,
    number: u32,
    args: [u64; 6],
}

fn call(name: &str, args: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Call { architecture: X86_64, number: number(name).unwrap(), args: all }
}

/// Runs the program as the kernel would.
fn run(filter: &Filter, call: Call) -> u32 {
    let mut data = Vec::new();
    data.extend(call.number.to_le_bytes());
    data.extend(call.architecture.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    data.extend(call.args.iter().flat_map(|arg| arg.to_le_bytes()));
    let code: Vec<_> = filter
        .program
        .chunks(8)
        .map(|b| {
            let value = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            (u16::from_le_bytes([b[0], b[1]]), usize::from(b[2]), usize::from(b[3]), value)
        })
        .collect();
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let (code, then, otherwise, value) = code[at];
        at += 1;
        let offset = usize::try_from(value).unwrap();
        let mut branch = |holds: bool| at += if holds { then } else { otherwise };
        match code {
            op::LOAD => a = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap()),
            op::AND => a &= value,
            op::JUMP => at += offset,
            op::IF_EQUAL => branch(a == value),
            op::IF_GREATER => branch(a > value),
            op::IF_GREATER_OR_EQUAL => branch(a >= value),
            op::RETURN => return value,
            other => panic!("code {other:#x}"),
        }
    }
}

fn matches(arg: &Value, call: Call) -> bool {
    let arg: LinuxSeccompArg = serde_json::from_value(arg.clone()).unwrap();
    let (is, value, two) = (call.args[arg.index()], arg.value(), arg.value_two().unwrap_or(0));
    match arg.op().to_string().as_str() {
        "SCMP_CMP_NE" => is != value,
        "SCMP_CMP_LT" => is < value,
        "SCMP_CMP_LE" => is <= value,
        "SCMP_CMP_EQ" => is == value,
        "SCMP_CMP_GE" => is >= value,
        "SCMP_CMP_GT" => is > value,
        "SCMP_CMP_MASKED_EQ" => is & value == two & value,
        other => panic!("{other}"),
    }
}

/// What the profile says about a call, read off its JSON.
fn meaning(profile: &Value, call: Call) -> u32 {
    let action = |object: &Value, action: &str, errno: &str| match object[action].as_str().unwrap() {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | u32::try_from(object[errno].as_u64().unwrap_or(1)).unwrap(),
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | u32::try_from(object[errno].as_u64().unwrap_or(1)).unwrap(),
        other => panic!("{other}"),
    };
    let default = action(profile, "defaultAction", "defaultErrnoRet");
    if call.architecture != X86_64 {
        return 0;
    }
    if call.number >= X32 {
        let listed = profile["architectures"].as_array().unwrap().contains(&json!("SCMP_ARCH_X32"));
        return if call.number == SKIPPED {
            default
        } else if listed {
            0x0005_0026
        } else {
            0
        };
    }
    let rules = profile["syscalls"].as_array().unwrap();
    let numbers = |rule: &Value| {
        rule["names"].as_array().unwrap().iter().filter_map(|n| number(n.as_str().unwrap())).collect::<Vec<_>>()
    };
    let newest = rules.iter().flat_map(numbers).max();
    let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
    if newest.is_some_and(|newest| call.number > newest)
        && !permissive.contains(&profile["defaultAction"].as_str().unwrap())
    {
        return 0x0005_0026;
    }
    let mut about: Vec<(u32, Vec<Value>)> = Vec::new();
    for rule in rules.iter().filter(|rule| numbers(rule).contains(&call.number)) {
        let verdict = action(rule, "action", "errnoRet");
        let args = rule["args"].as_array().unwrap().clone();
        // A name that a rule has twice makes two rules of it, which changes nothing.
        if verdict == default {
            continue;
        }
        let mut indices: Vec<_> = args.iter().map(|arg| arg["index"].as_u64().unwrap()).collect();
        indices.sort_unstable();
        indices.dedup();
        if indices.len() < args.len() {
            about.extend(args.into_iter().map(|arg| (verdict, vec![arg])));
        } else {
            about.push((verdict, args));
        }
    }
    let always = about.iter().find(|(_, args)| args.is_empty());
    let first = about.iter().find(|(_, args)| args.iter().all(|arg| matches(arg, call)));
    always.or(first).map_or(default, |(verdict, _)| *verdict)
}

fn parse(profile: &Value) -> LinuxSeccomp {
    serde_json::from_value(profile.clone()).unwrap()
}

const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "clone",
    "socket",
    "mount",
    "keyctl",
    "personality",
    "setns",
    "clone3",
    "futex_waitv",
    "no_such_call",
];

/// Values around which comparisons change, in both halves.
fn value() -> impl Strategy<Value = u64> {
    let half = || prop_oneof![Just(0_u64), Just(1), Just(0x7fff_ffff), Just(0x8000_0000), Just(0xffff_ffff), 0_u64..4];
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

fn arg() -> impl Strategy<Value = Value> {
    let op = proptest::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    (0..6, value(), value(), op).prop_map(
        |(index, value, two, op)| json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}")}),
    )
}

fn action() -> impl Strategy<Value = (String, Option<u32>)> {
    prop_oneof![
        proptest::sample::select(vec!["ALLOW", "LOG", "TRAP", "KILL", "KILL_PROCESS"]).prop_map(|a| (a, None)),
        (proptest::sample::select(vec!["ERRNO", "TRACE"]), proptest::option::of(0_u32..4096)),
    ]
    .prop_map(|(action, errno)| (format!("SCMP_ACT_{action}"), errno))
}

fn rule() -> impl Strategy<Value = Value> {
    let names = proptest::collection::vec(proptest::sample::select(NAMES.to_vec()), 1..4);
    (names, action(), proptest::collection::vec(arg(), 0..4)).prop_map(
        |(names, (action, errno), args)| json!({"names": names, "action": action, "errnoRet": errno, "args": args}),
    )
}

fn profile() -> impl Strategy<Value = Value> {
    let architectures =
        proptest::sample::subsequence(vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=3);
    (action(), architectures, proptest::collection::vec(rule(), 0..24)).prop_map(
        |((action, errno), architectures, syscalls)| {
            json!({"defaultAction": action, "defaultErrnoRet": errno, "architectures": architectures, "syscalls": syscalls})
        },
    )
}

fn some_call() -> impl Strategy<Value = Call> {
    let named = proptest::sample::select(NAMES.to_vec()).prop_map(|name| number(name).unwrap_or(600));
    let numbers = prop_oneof![8 => named, 2 => 0_u32..600, 1 => Just(SKIPPED), 1 => X32..X32 + 600, 1 => any::<u32>()];
    let architectures = prop_oneof![9 => Just(X86_64), 1 => Just(0x4000_0003), 1 => any::<u32>()];
    (architectures, numbers, proptest::array::uniform6(value())).prop_map(|(architecture, number, args)| Call {
        architecture,
        number,
        args,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_program_does_what_its_profile_says(
        profile in profile(),
        calls in proptest::collection::vec(some_call(), 1..32),
    ) {
        let filter = compile(&parse(&profile)).unwrap();
        for call in calls {
            prop_assert_eq!(run(&filter, call), meaning(&profile, call), "{:?}", call);
        }
    }
}

fn allowed(filter: &Filter, name: &str, args: &[u64]) -> bool {
    run(filter, call(name, args)) == Verdict::ALLOW.0
}

#[test]
fn the_default_profile_keeps_out_what_it_should() {
    let filter = compile(&runtime_default(&Capabilities::new())).unwrap();
    for name in ["read", "execve", "ptrace", "futex", "setresuid", "statmount"] {
        assert!(allowed(&filter, name, &[]), "{name}");
    }
    for name in ["mount", "unshare", "setns", "keyctl", "bpf", "io_uring_setup", "kexec_load", "chroot", "reboot"] {
        assert_eq!(run(&filter, call(name, &[])), Verdict::errno(1).0, "{name}");
    }
    assert!(allowed(&filter, "socket", &[2]) && !allowed(&filter, "socket", &[40]));
    assert!(allowed(&filter, "clone", &[0x11]) && !allowed(&filter, "clone", &[0x1000_0000]));
    assert!(allowed(&filter, "personality", &[0xffff_ffff]) && !allowed(&filter, "personality", &[0x0040_0000]));
    assert_eq!(run(&filter, call("clone3", &[])), Verdict::errno(38).0);
    let newer = Call { number: 500, ..call("read", &[]) };
    assert_eq!(run(&filter, newer), Verdict::errno(38).0);
}

#[test]
fn capabilities_open_the_default_profile() {
    let filter = compile(&runtime_default(&[Capability::SysAdmin, Capability::SysChroot].into())).unwrap();
    for name in ["mount", "unshare", "setns", "bpf", "clone3", "chroot"] {
        assert!(allowed(&filter, name, &[]), "{name}");
    }
    assert!(allowed(&filter, "clone", &[0x1000_0000]));
    assert!(!allowed(&filter, "keyctl", &[]) && !allowed(&filter, "socket", &[40]));
}

#[test]
fn the_default_profile_is_small() {
    let all: Capabilities = Capabilities::new();
    let instructions = compile(&runtime_default(&all)).unwrap().program.len() / 8;
    assert!(instructions < 400, "{instructions}");
}

#[test]
fn a_program_longer_than_a_branch_works() {
    let rules: Vec<_> = (0..300)
        .filter_map(|number| syscalls::x86_64::Sysno::new(number).map(|call| call.name()))
        .map(|name| {
            json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [], "syscalls": rules});
    let filter = compile(&parse(&profile)).unwrap();
    assert!(filter.program.len() / 8 > 1000);
    for number in 0..600 {
        for arg in [7, 8] {
            let call = Call { architecture: X86_64, number, args: [arg, 0, 0, 0, 0, 0] };
            assert_eq!(run(&filter, call), meaning(&profile, call), "{call:?}");
        }
    }
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let arg = |index: usize| json!({"index": index, "value": 1_u64 << 40, "op": "SCMP_CMP_LT"});
    let args: Vec<_> = (0..6).map(arg).collect();
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args});
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": vec![rule; 200]});
    assert!(compile(&parse(&profile)).unwrap_err().to_string().contains("4096"));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (profile, field) in [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}), "listenerPath"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "defaultAction errnoRet"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}), "defaultAction errnoRet"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}), "flags"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            "syscalls[0].action",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
            "syscalls[0].names",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "syscalls[0].args.index",
        ),
    ] {
        match compile(&parse(&profile)).unwrap_err() {
            ProfileError::Unsupported { field: named, .. } | ProfileError::Invalid { field: named, .. } => {
                assert_eq!(named, field);
            }
            other @ ProfileError::Unreadable(_) => panic!("{other}"),
        }
    }
}

#[test]
fn flags_are_the_kernels() {
    let flags =
        |flags: Value| compile(&parse(&json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}))).unwrap().flags;
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])), 2);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 4);
    assert_eq!((flags(json!([])), flags(Value::Null)), (0, 4));
}
