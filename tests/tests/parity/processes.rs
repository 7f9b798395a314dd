//! How processes begin and end.

use husk_tests::parity::Case;
use serde_json::{Value, json};

fn args(args: &[&str]) -> Value {
    json!({"process": {"args": args}})
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("ends-well", args(&["/bin/true"]), ""),
        Case::new("fails", args(&["/bin/false"]), ""),
        Case::new("code", json!({}), "exit 42"),
        Case::new("code-255", json!({}), "exit 255"),
        Case::new("terminated", json!({}), "trap - TERM\nsh -c 'kill -TERM $PPID'\nsay immune true"),
        Case::new("child-killed", json!({}), "sh -c 'kill -KILL $$'\nsay killed echo $?\nsh -c 'kill -SEGV $$'\nsay crashed echo $?\nsh -c 'kill -TERM $$'\nsay terminated echo $?"),
        Case::new("missing", args(&["/no/such/program"]), ""),
        Case::new("missing-in-path", args(&["nosuchprogram"]), ""),
        Case::new("in-path", args(&["echo", "found"]), ""),
        Case::new("relative", json!({"process": {"cwd": "/work", "args": ["./script", "a b", ""]}}), ""),
        Case::new("directory", args(&["/work"]), ""),
        Case::new("not-executable", args(&["/work/no-program"]), ""),
        Case::new("bad-format", args(&["/work/bad-format"]), ""),
        Case::new("no-interpreter", args(&["/work/no-interpreter"]), ""),
        Case::new("script", args(&["/work/script", "one", "two words"]), ""),
        Case::new("arguments", args(&["/bin/printf", "<%s>", "", " ", "a\nb", "ä", "*", "$HOME", "\\"]), ""),
        Case::new("no-shell-of-its-own", args(&["/bin/echo", "$PATH", "`id`", ";", "ls"]), ""),
        Case::new("working-directory-forbidden", json!({"process": {"cwd": "/work/closed", "args": ["/bin/pwd"]}}), ""),
        Case::new(
            "orphans",
            json!({}),
            "sh -c 'sleep 0.2 & echo $! >/tmp/orphan'\nsay parent sh_ 'grep ^PPid /proc/$(cat /tmp/orphan)/status'\nsleep 1
             say zombies sh_ 'grep -l \"^State:.Z\" /proc/[0-9]*/status | wc -l'",
        ),
        Case::new("background", json!({}), "sleep 1000 &\nsay left sh_ 'ls /proc | grep -c ^[0-9]'\nexit 3"),
        Case::new("output", json!({}), "echo out\necho err >&2\nprintf 'no newline'"),
        Case::new("input", json!({}), "say end cat"),
        Case::new("time", json!({}), "say year sh_ 'test $(date +%Y) -ge 2024'\nsay zone date +%Z\nsay clocks sh_ 'test $(cut -d . -f 1 /proc/uptime) -ge 0'"),
        Case::exec("exec-code", json!({}), json!({}), "exit 17"),
        Case::exec("exec-missing", json!({}), json!({"args": ["/no/such/program"]}), ""),
        Case::exec("exec-path", json!({}), json!({"args": ["echo", "found"]}), ""),
        Case::exec("exec-cwd", json!({}), json!({"cwd": "/no/such/directory", "args": ["/bin/pwd"]}), ""),
        Case::exec("exec-output", json!({}), json!({}), "echo out\necho err >&2"),
        Case::exec("exec-sees", json!({}), json!({}), "say init cat /proc/1/comm\nsay own sh_ 'test $$ -gt 1'\nsay children sh_ 'grep -c . /proc/1/task/1/children'\nsay tty tty"),
    ]
}
