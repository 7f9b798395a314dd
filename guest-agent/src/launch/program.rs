//! From a prepared process to the program: working directory, environment, look-up in PATH, execve.

use std::ffi::CString;
use std::io::Read as _;
use std::path::Path;

use husk_agent_api::v1;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Never;
use super::root::Root;
use crate::error::{Context, Error, Result};
use crate::fs::resolve::{Links, Missing, file_type, resolve};

/// Searched when the environment has no PATH, as execvp(3) would.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest passwd file that is read.
const MAX_PASSWD: u64 = 1 << 20;

/// Makes an init's working directory when the image has none.
pub(super) fn prepare_cwd(root: &Root, cwd: &str) -> Result<()> {
    match resolve(&root.fd, Path::new(cwd), Missing::Directory, Links::Follow) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.during(format_args!("working directory {cwd}"))),
    }
}

/// Changes to the working directory and checks that it lies in the container (the class of CVE-2024-21626).
pub(super) fn enter_cwd(cwd: &str) -> Result<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    rustix::process::chdir(cwd)
        .map_err(|errno| Error::precondition(format!("working directory {cwd}: {}", reason(errno))))?;
    let real = rustix::process::getcwd(Vec::new()).on("getcwd", cwd)?;
    if real.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(Error::precondition(format!("working directory {cwd} is outside of the container's root")))
    }
}

/// The environment of the request; HOME comes from the container's passwd file when it is missing.
pub(super) fn environment(root: &Root, process: &v1::Process) -> Result<Vec<CString>> {
    let mut all = process.env.iter().map(|entry| c_string("env", entry)).collect::<Result<Vec<_>>>()?;
    if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        let uid = process.user.as_ref().map_or(0, |user| user.uid);
        let home = read_passwd(root).as_deref().and_then(|passwd| home_of(passwd, uid)).unwrap_or("/").to_owned();
        all.push(c_string("env", &format!("HOME={home}"))?);
    }
    Ok(all)
}

/// The image's passwd file, if it is a regular file of sane size.
fn read_passwd(root: &Root) -> Option<String> {
    let fd = rustix::fs::openat2(
        &root.fd,
        "/etc/passwd",
        // A FIFO must not hold us up.
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .ok()?;
    if file_type(&fd).ok()? != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX_PASSWD).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Home directory of a user in passwd(5)'s format.
fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = fields.nth(2)?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (number == uid && home.starts_with('/') && !home.contains('\0')).then_some(home)
    })
}

fn c_string(field: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("process.{field}: an entry contains a NUL byte")))
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "not found".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NOEXEC => {
            "exec format error (a binary of another architecture, or a script without #! line?)".to_owned()
        }
        other => other.to_string(),
    }
}

/// Exit code of a process whose launch failed, as shells have it.
pub(super) fn exit_code(error: &Error) -> i32 {
    match error {
        Error::FailedPrecondition(text) if text.contains("not found") => 127,
        _ => 126,
    }
}

/// The files that `name` may mean: itself if it has a slash, else its places in PATH. Empty PATH elements would mean
/// the working directory and are skipped.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect()
}

/// A program that only has to be executed: what comes next may be under a filter that allows little else.
pub(super) struct Program {
    name: String,
    path: String,
    files: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// `arguments[0]`, to be looked up in the PATH of `environment`. No descriptor will outlive execve.
    pub(super) fn prepare(arguments: &[String], environment: Vec<CString>) -> Result<Self> {
        let name = arguments.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid("process.args: there is no program to run"))?.clone();
        let path = environment
            .iter()
            .filter_map(|entry| entry.to_str().ok())
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or(DEFAULT_PATH)
            .to_owned();
        let c_strings =
            |strings: &[String]| strings.iter().map(|text| c_string("args", text)).collect::<Result<Vec<_>>>();
        let (files, arguments) = (c_strings(&candidates(&name, &path))?, c_strings(arguments)?);
        crate::sys::close_all_on_exec().on("close_range", "descriptors")?;
        Ok(Self { name, path, files, arguments, environment })
    }

    pub(super) fn execute(self) -> Result<Never> {
        let Self { name, path, files, arguments, environment } = self;
        let mut worst = Errno::NOENT;
        for file in files {
            match crate::sys::execve(&file, &arguments, &environment) {
                Errno::NOENT | Errno::NOTDIR => {}
                // Another directory may have one that we may run.
                Errno::ACCESS => worst = Errno::ACCESS,
                errno => return Err(Error::precondition(format!("exec {name:?}: {}", reason(errno)))),
            }
        }
        let place = match (worst, name.contains('/')) {
            (Errno::NOENT, true) => " (the file, or the interpreter that it names)".to_owned(),
            (Errno::NOENT, false) => format!(" in PATH ({path})"),
            _ => String::new(),
        };
        Err(Error::precondition(format!("exec {name:?}: {}{place}", reason(worst))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_path() {
        assert_eq!(candidates("sh", "/usr/bin/::/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert!(candidates("sh", "").is_empty());
    }

    #[test]
    fn home_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\nbad:x:5:5::relative:\n";
        assert_eq!(home_of(passwd, 33), Some("/var/www"));
        assert_eq!(home_of(passwd, 0), Some("/root"));
        assert_eq!(home_of(passwd, 5), None);
        assert_eq!(home_of(passwd, 1000), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let execute = |name: &str, environment| Program::prepare(&[name.to_owned()], environment).unwrap().execute();
        let error = execute("nosuch-program", vec![CString::new("PATH=/nowhere").unwrap()]).unwrap_err();
        assert_eq!(error.to_string(), "exec \"nosuch-program\": not found in PATH (/nowhere)");
        assert_eq!(exit_code(&error), 127);
        let error = execute("/", Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "exec \"/\": permission denied");
        assert_eq!(exit_code(&error), 126);
    }
}
