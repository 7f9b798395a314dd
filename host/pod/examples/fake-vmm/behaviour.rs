//! What is to go wrong.

use std::collections::BTreeSet;
use std::path::Path;

/// Words of the form `die=resume`, `hang=boot`, `refuse=plug`, `forge-events`.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour(BTreeSet<String>);

impl Behaviour {
    /// No file, nothing wrong.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    /// Whether the word is there for this call.
    pub(crate) fn wants(&self, word: &str, call: &str) -> bool {
        self.0.contains(&format!("{word}={call}"))
    }

    /// Dies when this call is the one.
    pub(crate) fn maybe_die(&self, call: &str) {
        if self.wants("die", call) {
            std::process::exit(3);
        }
    }
}
