//! The files that a VM is made of.

use std::path::{Path, PathBuf};

/// Where the VMM, the guest kernel and the initramfs are. Never chosen by an annotation or a client
/// (CVE-2020-27151 of a peer): only by the installation or by the environment of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    pub vmm: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// `/dev/kvm`.
    pub kvm: PathBuf,
}

/// Why the files were not found.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    #[error("the path of the running program cannot be read from /proc/self/exe: {0}; mount /proc")]
    OwnPath(#[source] std::io::Error),
    #[error("{variable}={} is not an absolute path; give one or unset the variable", path.display())]
    NotAbsolute { variable: &'static str, path: PathBuf },
    #[error("{what} {} is not there ({source}); install it, or set {variable} to its path", path.display())]
    Missing { what: &'static str, variable: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} {} is not a file; put the right one there, or set {variable} to its path", path.display())]
    NotAFile { what: &'static str, variable: &'static str, path: PathBuf },
}

impl Assets {
    /// Finds them as installed: `husk-vmm` beside the running program, `vmlinux` and `initramfs.cpio` in
    /// `../lib/husk` relative to it. `HUSK_VMM`, `HUSK_KERNEL` and `HUSK_INITRAMFS` override one each.
    pub fn find() -> Result<Self, AssetError> {
        let program = std::fs::read_link("/proc/self/exe").map_err(AssetError::OwnPath)?;
        Self::find_beside(&program, |variable| std::env::var_os(variable).map(PathBuf::from))
    }

    fn find_beside(program: &Path, environment: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, AssetError> {
        let bin = program.parent().unwrap_or(Path::new("/"));
        let lib = bin.parent().unwrap_or(Path::new("/")).join("lib/husk");
        let find = |what, variable, installed: PathBuf| {
            let path = match environment(variable) {
                Some(path) if path.is_absolute() => path,
                Some(path) => return Err(AssetError::NotAbsolute { variable, path }),
                None => installed,
            };
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => Ok(path),
                Ok(_) => Err(AssetError::NotAFile { what, variable, path }),
                Err(source) => Err(AssetError::Missing { what, variable, path, source }),
            }
        };
        Ok(Self {
            vmm: find("the VMM", "HUSK_VMM", bin.join("husk-vmm"))?,
            kernel: find("the guest kernel", "HUSK_KERNEL", lib.join("vmlinux"))?,
            initramfs: find("the guest's initramfs", "HUSK_INITRAMFS", lib.join("initramfs.cpio"))?,
            kvm: PathBuf::from("/dev/kvm"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path) -> PathBuf {
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::create_dir_all(root.join("lib/husk")).unwrap();
        for file in ["bin/husk-vmm", "lib/husk/vmlinux", "lib/husk/initramfs.cpio"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        root.join("bin/containerd-shim-husk-v2")
    }

    #[test]
    fn an_installation_is_found_beside_the_program() {
        let root = tempfile::tempdir().unwrap();
        let assets = Assets::find_beside(&install(root.path()), |_| None).unwrap();
        assert_eq!(assets.vmm, root.path().join("bin/husk-vmm"));
        assert_eq!(assets.kernel, root.path().join("lib/husk/vmlinux"));
    }

    #[test]
    fn the_environment_overrides_one_file() {
        let root = tempfile::tempdir().unwrap();
        let program = install(root.path());
        let other = root.path().join("other-kernel");
        std::fs::write(&other, "").unwrap();
        let assets =
            Assets::find_beside(&program, |variable| (variable == "HUSK_KERNEL").then(|| other.clone())).unwrap();
        assert_eq!(assets.kernel, other);
        assert_eq!(assets.initramfs, root.path().join("lib/husk/initramfs.cpio"));
    }

    #[test]
    fn a_missing_file_is_named_with_its_variable() {
        let root = tempfile::tempdir().unwrap();
        let program = install(root.path());
        std::fs::remove_file(root.path().join("lib/husk/vmlinux")).unwrap();
        let message = Assets::find_beside(&program, |_| None).unwrap_err().to_string();
        assert!(message.contains("lib/husk/vmlinux") && message.contains("HUSK_KERNEL"), "{message}");
    }

    #[test]
    fn a_relative_override_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let result = Assets::find_beside(&install(root.path()), |_| Some(PathBuf::from("vmlinux")));
        assert!(matches!(result, Err(AssetError::NotAbsolute { .. })));
    }
}
