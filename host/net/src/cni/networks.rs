//! Network configurations in directories.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::config::{ConfigError, Network};

/// Where network configurations stand by convention.
pub const CONFIG_DIR: &str = "/etc/cni/net.d";

/// Larger than any configuration that a person or program has written yet.
const MAX_BYTES: u64 = 1 << 20;

/// What the configuration directories hold, in order: directory by directory, in each by file name.
#[derive(Debug)]
pub struct Networks {
    dirs: Vec<PathBuf>,
    found: Vec<Result<Network, ConfigError>>,
}

/// Why no network was found.
#[derive(Debug, thiserror::Error)]
pub enum NoNetwork {
    #[error(
        "there is no CNI configuration (*.conflist, *.conf, *.json) in {dirs}; install a network's, or name another directory"
    )]
    None { dirs: String },
    #[error("no network is called {name} in {dirs}; there are: {others}")]
    NotFound { name: String, dirs: String, others: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Networks {
    /// Reads the directories. One that is missing counts as empty; a broken file does not hide the others.
    pub fn load(dirs: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut found = Vec::new();
        for dir in dirs {
            for path in files(dir).map_err(|source| ConfigError::Read { path: dir.clone(), source })? {
                found.push(read(&path).and_then(|text| Network::parse(&text, &path.display().to_string())));
            }
        }
        Ok(Self { dirs: dirs.to_vec(), found })
    }

    /// The network that pods get when nobody names one: the first. That a broken file comes first is an error, lest
    /// pods silently land in another network.
    pub fn first(self) -> Result<Network, NoNetwork> {
        let dirs = self.dirs();
        self.found.into_iter().next().ok_or(NoNetwork::None { dirs })?.map_err(NoNetwork::Config)
    }

    /// The first network of that name.
    pub fn named(self, name: &str) -> Result<Network, NoNetwork> {
        let dirs = self.dirs();
        let mut others = Vec::new();
        for found in self.found {
            match found {
                Ok(network) if network.name() == name => return Ok(network),
                Ok(network) => others.push(network.name().to_owned()),
                Err(error) => others.push(format!("({error})")),
            }
        }
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        Err(NoNetwork::NotFound { name: name.to_owned(), dirs, others })
    }

    /// All of them, broken ones with the reason.
    pub fn iter(&self) -> impl Iterator<Item = Result<&Network, &ConfigError>> {
        self.found.iter().map(Result::as_ref)
    }

    fn dirs(&self) -> String {
        self.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let known = path.extension().and_then(|ext| ext.to_str());
        if matches!(known, Some("conflist" | "conf" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut text))
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { origin: path.display().to_string(), limit: MAX_BYTES });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> String {
        format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"bridge"}}]}}"#)
    }

    #[test]
    fn the_first_file_by_name_wins_and_others_are_found_by_network() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("20-b.conflist", network("b")),
            ("10-a.json", r#"{"cniVersion":"0.3.1","name":"a","type":"ptp"}"#.into()),
            ("30-c.conf", network("c")),
            ("00-readme.txt", "not a configuration".into()),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let load = || Networks::load(&["/nonexistent/net.d".into(), dir.path().into()]).unwrap();
        assert_eq!(load().first().unwrap().name(), "a");
        assert_eq!(load().named("c").unwrap().plugins().collect::<Vec<_>>(), ["bridge"]);
        let error = load().named("d").unwrap_err().to_string();
        assert!(error.contains("no network is called d") && error.ends_with("there are: a, b, c"), "{error}");
    }

    #[test]
    fn a_broken_file_is_named_and_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("10-broken.conflist"), "{").unwrap();
        std::fs::write(dir.path().join("20-b.conflist"), network("b")).unwrap();
        let load = || Networks::load(&[dir.path().into()]).unwrap();
        assert!(load().first().unwrap_err().to_string().contains("10-broken.conflist is not JSON"));
        assert_eq!(load().named("b").unwrap().name(), "b");
        assert_eq!(load().iter().filter(Result::is_err).count(), 1);
    }

    #[test]
    fn no_configuration_at_all_names_the_directories() {
        let error = Networks::load(&["/nonexistent/net.d".into()]).unwrap().first().unwrap_err().to_string();
        assert!(error.contains("in /nonexistent/net.d; install"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("10-a.conf")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = Networks::load(&[dir.path().into()]).unwrap().first().unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
    }
}
