//! Objects by id.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Objects by id, which may be shortened to any beginning that is one object's alone.
#[derive(Debug)]
pub struct Table<T> {
    objects: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { objects: RwLock::default() }
    }
}

impl<T> Table<T> {
    pub fn insert(&self, id: &str, object: Arc<T>) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), object);
    }

    pub fn remove(&self, id: &str) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The object with this id, or the only one whose id begins so.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<T>> {
        if id.is_empty() {
            return None;
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = objects.get(id) {
            return Some(Arc::clone(object));
        }
        let mut matching = objects.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        match (matching.next(), matching.next()) {
            (Some((_, object)), None) => Some(Arc::clone(object)),
            _ => None,
        }
    }

    /// Every object.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_shortened_while_it_is_clear() {
        let table = Table::default();
        for id in ["abc1", "abd2", "b"] {
            table.insert(id, Arc::new(id));
        }
        assert_eq!(table.find("abc"), Some(Arc::new("abc1")));
        assert_eq!(table.find("b"), Some(Arc::new("b")));
        assert_eq!((table.find("ab"), table.find(""), table.find("x")), (None, None, None));
        table.remove("abd2");
        assert_eq!(table.find("ab"), Some(Arc::new("abc1")));
        assert_eq!(table.all().len(), 2);
    }
}
