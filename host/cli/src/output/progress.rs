//! Progress of pulls and loads: bars when standard error is a terminal, a line per finished layer otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};

use husk_image::{Event, Progress, Silent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::human;

/// Bars or lines on standard error; nothing when `quiet`.
pub(crate) fn of_images(quiet: bool) -> Arc<dyn Progress> {
    if quiet {
        Arc::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Lines)
    }
}

fn count(layers: usize) -> String {
    if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") }
}

/// One line for each thing that is done.
struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        // Whoever closed standard error does not want to know.
        let mut err = std::io::stderr().lock();
        let _ = match event {
            Event::Resolved { name, layers, bytes, .. } => {
                writeln!(err, "{name}: {}, {}", count(layers), human::size(bytes))
            }
            Event::Applied { digest, index, layers } => {
                writeln!(err, "layer {} done ({} of {layers})", human::short_id(digest), index.saturating_add(1))
            }
            Event::Finished { name } => writeln!(err, "{name}: stored"),
            _ => Ok(()),
        };
    }
}

/// A bar for each layer and one for the writing of the image.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

impl fmt::Debug for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bars").finish_non_exhaustive()
    }
}

impl Bars {
    fn bar(&self, name: &str, total: u64) -> Option<ProgressBar> {
        let mut bars = self.bars.lock().ok()?;
        let bar = bars.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            bar.set_prefix(name.to_owned());
            let template = "{prefix:>12} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:9} \
                            {decimal_bytes_per_sec:>11} {eta:>4} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        bar.set_length(total);
        Some(bar.clone())
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Resolved { name, layers, .. } => {
                let _ = self.all.println(format!("{name}: {}", count(layers)));
            }
            Event::Layer { digest, done, total } => {
                if let Some(bar) = self.bar(&human::short_id(digest), total) {
                    bar.set_position(done);
                }
            }
            Event::Applied { digest, .. } => {
                let name = human::short_id(digest);
                let bar = self.bars.lock().ok().and_then(|bars| bars.get(&name).cloned());
                if let Some(bar) = bar {
                    bar.finish_with_message("applied");
                }
            }
            Event::Writing { done, total } => {
                if let Some(bar) = self.bar("image", total) {
                    bar.set_position(done);
                }
            }
            Event::Finished { .. } => {
                if let Ok(mut bars) = self.bars.lock() {
                    bars.values().for_each(ProgressBar::finish_and_clear);
                    bars.clear();
                }
            }
            _ => {}
        }
    }
}
