//! Refuses, before anything is made, what a request asks for and cannot have.

use std::path::Path;

use husk_agent_api::is_valid_id;
use husk_agent_api::v1::{self, CreateContainerRequest, PidMode, Propagation, mount::Kind};

use crate::error::{Error, Result};
use crate::fs::mount::Flags;
use crate::fs::resolve::{check_absolute, check_relative};
use crate::pod::identity::POD_FILES;
use crate::pod::users;
use crate::zygote::channel::MAX_FDS;

/// Descriptors of a spawn request that are no mounts.
const OTHER_FDS: usize = 16;
/// Most kernel file systems, device nodes, and so on; far above any real container.
const MAX_LIST: usize = 512;
/// Most EROFS images of a container: what fits into overlayfs with room to spare.
const MAX_LOWER: usize = 64;
/// File systems that a container may have an instance of.
const KERNEL_FS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2"];

/// Checks an id of the field `what`.
pub fn id(what: &str, id: &str) -> Result<()> {
    if is_valid_id(id) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what}: {id:?} is not 1 to {} bytes of [A-Za-z0-9._-] beginning with an alphanumeric",
        husk_agent_api::MAX_ID
    )))
}

fn bounded(field: &str, length: usize, most: usize) -> Result<()> {
    if length <= most { Ok(()) } else { Err(Error::invalid(format!("{field}: {length} are more than {most}"))) }
}

/// Checks a whole CreateContainer request.
pub fn create(request: &CreateContainerRequest) -> Result<()> {
    id("container_id", &request.container_id)?;
    let root_fs = request.root_fs.as_ref().ok_or_else(|| Error::invalid("root_fs: missing"))?;
    if root_fs.lower_slots.is_empty() {
        return Err(Error::invalid("root_fs.lower_slots: empty"));
    }
    bounded("root_fs.lower_slots", root_fs.lower_slots.len(), MAX_LOWER)?;
    bounded("mounts", request.mounts.len(), MAX_LIST)?;
    bounded("devices", request.devices.len(), MAX_LIST)?;
    bounded("masked_paths", request.masked_paths.len(), MAX_LIST)?;
    bounded("readonly_paths", request.readonly_paths.len(), MAX_LIST)?;
    let binds = request.mounts.iter().filter(|mount| !matches!(mount.kind, Some(Kind::Kernel(_)))).count();
    bounded("mounts that are no kernel file systems", binds, MAX_FDS.saturating_sub(OTHER_FDS))?;
    for entry in &request.mounts {
        mount(entry)?;
    }
    for node in &request.devices {
        device(node)?;
    }
    for path in &request.masked_paths {
        check_absolute("masked_paths", path)?;
    }
    for path in &request.readonly_paths {
        check_absolute("readonly_paths", path)?;
    }
    let mode = PidMode::try_from(request.pid_mode)
        .map_err(|_| Error::invalid(format!("pid_mode: {} is unknown", request.pid_mode)))?;
    if (mode == PidMode::Target) == request.pid_target.is_empty() {
        return Err(Error::invalid("pid_target: needed for PID_MODE_TARGET, and only for it"));
    }
    propagation(request.root_propagation)?;
    if let Some(resources) = &request.resources {
        crate::cgroup::limits::Limits::new(resources)?;
    }
    if let Some(filter) = &request.seccomp {
        crate::launch::seccomp::check(filter)?;
    }
    if let Some(maps) = &request.user_namespace {
        if mode == PidMode::Node {
            return Err(Error::invalid("user_namespace: its root may not show the guest's processes (PID_MODE_NODE)"));
        }
        users::check("user_namespace", maps)?;
    }
    if let Some(clocks) = &request.clocks {
        clock("monotonic", clocks.monotonic.as_ref())?;
        clock("boottime", clocks.boottime.as_ref())?;
    }
    process(request.process.as_ref())
}

fn clock(name: &str, offset: Option<&v1::ClockOffset>) -> Result<()> {
    match offset {
        Some(offset) if offset.nanoseconds > 999_999_999 => {
            Err(Error::invalid(format!("clocks.{name}.nanoseconds: {} are a second or more", offset.nanoseconds)))
        }
        _ => Ok(()),
    }
}

/// `MS_*` bit of a propagation.
pub fn propagation(value: i32) -> Result<u64> {
    match Propagation::try_from(value) {
        Ok(Propagation::Unspecified | Propagation::Private) => Ok(libc::MS_PRIVATE),
        Ok(Propagation::Slave) => Ok(libc::MS_SLAVE),
        Ok(Propagation::Shared) => Ok(libc::MS_SHARED),
        Err(_) => Err(Error::invalid(format!("root_propagation: {value} is unknown"))),
    }
}

fn mount(mount: &v1::Mount) -> Result<()> {
    let destination = &mount.destination;
    check_absolute("mounts.destination", destination)?;
    if Path::new(destination).file_name().is_none() {
        return Err(Error::invalid(format!("mounts.destination: {destination:?} is the root itself")));
    }
    Flags::from_ms(destination, mount.flags)?;
    if let Some(maps) = &mount.id_maps {
        if !matches!(mount.kind, Some(Kind::Volume(_))) {
            return Err(Error::invalid(format!("mounts.id_maps of {destination}: it is no volume")));
        }
        users::check("mounts.id_maps", maps)?;
    }
    match &mount.kind {
        None => Err(Error::invalid(format!("mounts.kind of {destination}: missing"))),
        Some(Kind::Kernel(kernel)) => {
            if !KERNEL_FS.contains(&kernel.fs_type.as_str()) {
                let known = KERNEL_FS.join(", ");
                let fs_type = &kernel.fs_type;
                return Err(Error::invalid(format!(
                    "mounts.kernel.fs_type of {destination}: {fs_type:?} is none of {known}"
                )));
            }
            if kernel.data.len() > 4096 || kernel.data.contains('\0') {
                return Err(Error::invalid(format!(
                    "mounts.kernel.data of {destination}: too long or with a NUL byte"
                )));
            }
            Ok(())
        }
        Some(Kind::Volume(volume)) => {
            id("mounts.volume.name", &volume.name)?;
            check_relative("mounts.volume.sub_path", &volume.sub_path)?;
            if volume.sub_path.starts_with('/') {
                return Err(Error::invalid(format!("mounts.volume.sub_path: {:?} is absolute", volume.sub_path)));
            }
            Ok(())
        }
        Some(Kind::PodFile(file)) if POD_FILES.contains(&file.name.as_str()) => Ok(()),
        Some(Kind::PodFile(file)) => {
            Err(Error::invalid(format!("mounts.pod_file.name: {:?} is none of {}", file.name, POD_FILES.join(", "))))
        }
        Some(Kind::SharedMemory(_)) => Ok(()),
    }
}

fn device(node: &v1::DeviceNode) -> Result<()> {
    check_absolute("devices.path", &node.path)?;
    let path = Path::new(&node.path);
    // Anywhere else the file system is mounted without devices.
    if !path.starts_with("/dev") || path.parent().is_none_or(|parent| !parent.starts_with("/dev")) {
        return Err(Error::invalid(format!("devices.path: {:?} is not below /dev", node.path)));
    }
    if node.slot.is_none() && !matches!(node.r#type.as_str(), "c" | "u" | "b" | "p") {
        return Err(Error::invalid(format!("devices.type of {}: {:?} is none of c, u, b, p", node.path, node.r#type)));
    }
    Ok(())
}

/// Checks a process. Its tokens are checked by `stdio`.
pub fn process(process: Option<&v1::Process>) -> Result<()> {
    let process = process.ok_or_else(|| Error::invalid("process: missing"))?;
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args: there is no program to run"));
    }
    if process.args.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::invalid("process.args: an argument contains a NUL byte"));
    }
    if process.env.iter().any(|entry| entry.contains('\0') || entry.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::invalid("process.env: an entry is not NAME=value, or contains a NUL byte"));
    }
    if !process.cwd.is_empty() && (!process.cwd.starts_with('/') || process.cwd.contains('\0')) {
        return Err(Error::invalid(format!("process.cwd: {:?} is not an absolute path", process.cwd)));
    }
    if process.cwd.len() >= 4096 {
        return Err(Error::invalid("process.cwd: longer than 4095 bytes"));
    }
    if let Some(score) = process.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(Error::invalid(format!("process.oom_score_adj: {score} is not within -1000 to 1000")));
    }
    for limit in &process.rlimits {
        if limit.resource >= 16 {
            return Err(Error::invalid(format!("process.rlimits.resource: {} is unknown", limit.resource)));
        }
        if limit.soft > limit.hard {
            return Err(Error::invalid(format!("process.rlimits: soft {} exceeds hard {}", limit.soft, limit.hard)));
        }
    }
    if let Some(user) = &process.user {
        // -1 means "leave as it is" to setresuid(2), which would leave root.
        if user.uid == u32::MAX || user.gid == u32::MAX || user.additional_gids.contains(&u32::MAX) {
            return Err(Error::invalid("process.user: an id is 4294967295, which stands for no id"));
        }
        bounded("process.user.additional_gids", user.additional_gids.len(), 65_536)?;
    }
    if process.terminal && process.stdio.as_ref().is_some_and(|stdio| stdio.stderr != 0) {
        return Err(Error::invalid("process.stdio.stderr: a terminal has none"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_agent_api::v1::{
        ClockOffset, ClockOffsets, DeviceNode, IdMap, IdMaps, KernelMount, Mount, PodFile, Process, RootFs, User,
        VolumeMount,
    };

    fn good() -> CreateContainerRequest {
        CreateContainerRequest {
            container_id: "web".to_owned(),
            root_fs: Some(RootFs { lower_slots: vec![1], read_only: false }),
            process: Some(Process { args: vec!["/bin/sh".to_owned()], ..Process::default() }),
            ..CreateContainerRequest::default()
        }
    }

    fn with_mount(destination: &str, kind: Option<Kind>) -> CreateContainerRequest {
        let mount = Mount { destination: destination.to_owned(), kind, ..Mount::default() };
        CreateContainerRequest { mounts: vec![mount], ..good() }
    }

    fn kernel(fs_type: &str) -> Option<Kind> {
        Some(Kind::Kernel(KernelMount { fs_type: fs_type.to_owned(), data: String::new() }))
    }

    fn refused(request: &CreateContainerRequest, field: &str) {
        let error = create(request).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(text) if text.starts_with(field)), "{field}: {error}");
    }

    #[test]
    fn a_plain_container_passes() {
        create(&good()).unwrap();
        create(&with_mount("/proc", kernel("proc"))).unwrap();
    }

    #[test]
    fn each_refusal_names_its_field() {
        refused(&CreateContainerRequest { container_id: "../x".to_owned(), ..good() }, "container_id");
        refused(&CreateContainerRequest { root_fs: None, ..good() }, "root_fs");
        refused(&CreateContainerRequest { root_fs: Some(RootFs::default()), ..good() }, "root_fs.lower_slots");
        refused(&CreateContainerRequest { pid_mode: 9, ..good() }, "pid_mode");
        refused(&CreateContainerRequest { pid_mode: PidMode::Target.into(), ..good() }, "pid_target");
        refused(&CreateContainerRequest { masked_paths: vec!["proc".to_owned()], ..good() }, "masked_paths");
        refused(&CreateContainerRequest { process: None, ..good() }, "process");
        refused(&with_mount("/", kernel("proc")), "mounts.destination");
        refused(&with_mount("/a/../b", kernel("proc")), "mounts.destination");
        refused(&with_mount("/a", None), "mounts.kind");
        refused(&with_mount("/a", kernel("debugfs")), "mounts.kernel.fs_type");
        let volume = |name: &str, sub_path: &str| {
            Some(Kind::Volume(VolumeMount { name: name.to_owned(), sub_path: sub_path.to_owned() }))
        };
        refused(&with_mount("/a", volume("..", "")), "mounts.volume.name");
        refused(&with_mount("/a", volume("v", "../x")), "mounts.volume.sub_path");
        refused(&with_mount("/a", volume("v", "/x")), "mounts.volume.sub_path");
        let file = Some(Kind::PodFile(PodFile { name: "../passwd".to_owned() }));
        refused(&with_mount("/a", file), "mounts.pod_file.name");
    }

    #[test]
    fn ids_and_clocks_are_checked() {
        let map = |container_id| vec![IdMap { container_id, host_id: 65_536, size: 65_536 }];
        let maps = |id| Some(IdMaps { uids: map(id), gids: map(id) });
        create(&CreateContainerRequest { user_namespace: maps(0), ..good() }).unwrap();
        refused(&CreateContainerRequest { user_namespace: maps(1), ..good() }, "user_namespace.uids");
        let node = PidMode::Node.into();
        refused(&CreateContainerRequest { user_namespace: maps(0), pid_mode: node, ..good() }, "user_namespace");
        let mut mapped = with_mount("/proc", kernel("proc"));
        mapped.mounts[0].id_maps = maps(0);
        refused(&mapped, "mounts.id_maps");
        let monotonic = Some(ClockOffset { seconds: 0, nanoseconds: 1_000_000_000 });
        let clocks = Some(ClockOffsets { monotonic, boottime: None });
        refused(&CreateContainerRequest { clocks, ..good() }, "clocks.monotonic");
    }

    #[test]
    fn devices_are_only_made_below_dev() {
        for path in ["/etc/x", "/dev", "/dev/../etc/x", "dev/x"] {
            let node = DeviceNode { path: path.to_owned(), r#type: "c".to_owned(), ..DeviceNode::default() };
            refused(&CreateContainerRequest { devices: vec![node], ..good() }, "devices.path");
        }
        let node = DeviceNode { path: "/dev/net/tun".to_owned(), r#type: "c".to_owned(), ..DeviceNode::default() };
        create(&CreateContainerRequest { devices: vec![node], ..good() }).unwrap();
    }

    #[test]
    fn a_process_without_program_or_with_bad_strings_is_refused() {
        let base = || Process { args: vec!["x".to_owned()], ..Process::default() };
        let bad = [
            Process { args: vec![], ..base() },
            Process { args: vec![String::new()], ..base() },
            Process { args: vec!["a\0b".to_owned()], ..base() },
            Process { env: vec!["novalue".to_owned()], ..base() },
            Process { env: vec!["=x".to_owned()], ..base() },
            Process { cwd: "relative".to_owned(), ..base() },
            Process { oom_score_adj: Some(1001), ..base() },
            Process { user: Some(User { uid: u32::MAX, ..User::default() }), ..base() },
        ];
        for process_ in bad {
            assert!(process(Some(&process_)).is_err(), "{process_:?}");
        }
    }
}
