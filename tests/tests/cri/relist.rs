//! kubelet's relist: everything there is, once a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use husk_tests::fixture::wait_until;

use super::kubelet::Kubelet;

/// States of each object in the order in which they were seen; `gone` when it was there before and is not any more.
type Seen = BTreeMap<String, Vec<String>>;

/// A relist that goes on until it is dropped.
pub(crate) struct Relist {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relist {
    pub(crate) fn begin(kubelet: &Kubelet) -> Self {
        let (seen, end) = (Arc::default(), Arc::default());
        let thread = std::thread::spawn({
            let (seen, end, kubelet) = (Arc::clone(&seen), Arc::clone(&end), kubelet.clone());
            move || {
                while !AtomicBool::load(&end, Ordering::Relaxed) {
                    look(&kubelet, &seen);
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        });
        Self { seen, end, thread: Some(thread) }
    }

    /// Waits until the states of an object have been these, one after the other.
    pub(crate) fn saw(&self, id: &str, states: &[&str]) {
        let seen = || self.seen.lock().unwrap().get(id).cloned().unwrap_or_default();
        wait_until(&format!("{states:?} of {id} in the relist"), 10, || seen().len() >= states.len());
        assert_eq!(seen(), states, "{id}");
    }
}

fn look(kubelet: &Kubelet, seen: &Mutex<Seen>) {
    let mut now = BTreeMap::new();
    for pod in kubelet.pods() {
        now.insert(pod.id.clone(), pod.state().as_str_name().to_owned());
    }
    for container in kubelet.containers() {
        now.insert(container.id.clone(), container.state().as_str_name().to_owned());
    }
    let mut seen = seen.lock().unwrap();
    for (_, states) in seen.iter_mut().filter(|(id, _)| !now.contains_key(*id)) {
        if states.last().is_some_and(|last| last != "gone") {
            states.push("gone".to_owned());
        }
    }
    for (id, state) in now {
        let states = seen.entry(id).or_default();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
}

impl Drop for Relist {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the relist failed");
    }
}
