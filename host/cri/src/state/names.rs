//! Names that only one sandbox, or one container of a sandbox, may have at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who has which name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    taken: Arc<Mutex<HashMap<String, String>>>,
}

/// A name that is taken until [`Reserved::keep`], and given back when that is never reached.
#[derive(Debug)]
pub struct Reserved {
    names: Names,
    name: Option<String>,
}

impl Names {
    /// Takes a name for `id`.
    ///
    /// # Errors
    ///
    /// The id that has it.
    pub fn reserve(&self, name: String, id: &str) -> Result<Reserved, String> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = taken.get(&name) {
            return Err(holder.clone());
        }
        taken.insert(name.clone(), id.to_owned());
        drop(taken);
        Ok(Reserved { names: self.clone(), name: Some(name) })
    }

    /// Gives back every name of `id`.
    pub fn release(&self, id: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, holder| holder != id);
    }
}

impl Reserved {
    /// The name stays with its id.
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.names.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_holders_until_it_is_released() {
        let names = Names::default();
        let reserved = names.reserve("web".into(), "1").unwrap();
        assert_eq!(names.reserve("web".into(), "2").unwrap_err(), "1");
        reserved.keep();
        assert_eq!(names.reserve("web".into(), "2").unwrap_err(), "1");
        names.release("1");
        names.reserve("web".into(), "2").unwrap();
    }

    #[test]
    fn a_failed_creation_gives_its_name_back() {
        let names = Names::default();
        drop(names.reserve("web".into(), "1").unwrap());
        assert!(names.reserve("web".into(), "2").is_ok());
    }
}
