//! Running programs of the file system.

use std::fs;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use crate::kit::{Check, GROUP, OWNER, as_other, chmod, file, open, program, run};
use crate::text::{see, words};

fn busy_text(body: impl FnOnce() -> std::io::Result<String>) -> std::io::Result<String> {
    program("p", 0o755)?;
    let mut running = Command::new("./p").arg("wait").stdin(Stdio::piped()).spawn()?;
    let seen = body();
    drop(running.stdin.take());
    running.wait()?;
    seen
}

pub(crate) const CHECKS: &[Check] = &[
    ("program/runs", || {
        program("p", 0o755)?;
        Ok(run("p", &["identity"]))
    }),
    ("program/runs-for-a-user", || {
        program("p", 0o755)?;
        Ok(as_other(|| Ok(run("p", &["identity"]))))
    }),
    ("program/not-executable", || {
        program("p", 0o644)?;
        words([run("p", &["identity"]), as_other(|| Ok(run("p", &["identity"])))])
    }),
    ("program/executable-and-unreadable", || {
        program("p", 0o711)?;
        Ok(as_other(|| words([run("p", &["identity"]), see(fs::read("p"))])))
    }),
    ("program/script", || {
        program("p", 0o755)?;
        let interpreter = std::env::current_dir()?.join("p");
        fs::write("s", format!("#!{} identity\n", interpreter.display()))?;
        chmod("s", 0o755)?;
        Ok(run("s", &[]))
    }),
    ("program/script-without-interpreter", || {
        fs::write("s", "#!/no/such/interpreter\n")?;
        chmod("s", 0o755)?;
        Ok(run("s", &[]))
    }),
    ("program/neither-script-nor-binary", || {
        file("s")?;
        chmod("s", 0o755)?;
        Ok(run("s", &[]))
    }),
    ("program/directory", || {
        fs::create_dir("d")?;
        Ok(run("d", &[]))
    }),
    ("program/set-user-id", || {
        program("p", 0o755)?;
        std::os::unix::fs::chown("p", Some(OWNER), None)?;
        chmod("p", 0o4755)?;
        Ok(as_other(|| Ok(run("p", &["identity"]))))
    }),
    ("program/set-user-id-of-root", || {
        program("p", 0o4755)?;
        Ok(as_other(|| Ok(run("p", &["identity"]))))
    }),
    ("program/set-group-id", || {
        program("p", 0o755)?;
        std::os::unix::fs::chown("p", None, Some(GROUP))?;
        chmod("p", 0o2755)?;
        Ok(as_other(|| Ok(run("p", &["identity"]))))
    }),
    ("program/capable-file", || {
        program("p", 0o755)?;
        // cap_chown, permitted and effective.
        let capability = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr("p", "security.capability", &capability, rustix::fs::XattrFlags::empty())?;
        Ok(as_other(|| Ok(run("p", &["identity"]))))
    }),
    ("program/written-while-running", || {
        busy_text(|| {
            words([see(open("p", OFlags::WRONLY)), see(crate::sys::truncate("p", 0)), see(open("p", OFlags::RDONLY))])
        })
    }),
    ("program/replaced-while-running", || {
        busy_text(|| {
            fs::copy("/proc/self/exe", "q")?;
            words([see(fs::rename("q", "p")), see(fs::remove_file("p"))])
        })
    }),
    ("program/run-while-written", || {
        program("p", 0o755)?;
        let _writer = open("p", OFlags::WRONLY)?;
        Ok(run("p", &["identity"]))
    }),
    ("program/by-descriptor", || {
        program("p", 0o755)?;
        let file = open("p", OFlags::PATH)?;
        // Nothing is said when it starts.
        let failed =
            crate::sys::in_child(60, || crate::text::name(&crate::sys::exec_descriptor(file.as_fd(), c"silence")));
        Ok(if failed.is_empty() { "started".to_owned() } else { failed })
    }),
    ("program/through-a-link", || {
        program("p", 0o755)?;
        std::os::unix::fs::symlink("p", "l")?;
        Ok(run("l", &["identity"]))
    }),
];
