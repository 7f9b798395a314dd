//! `docs/differences.md` as a test reads it, and the comparison of two outputs.
//!
//! Every table there whose first column is `Check` is read. A row names one check or several, or all that begin with
//! what stands before a `*`; where it holds (places, or `*`); the two results (or `*`, where a pattern stands for many);
//! and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    checks: Vec<String>,
    places: Vec<String>,
    runc: String,
    husk: String,
}

/// The documented differences.
#[derive(Debug, Clone)]
pub struct Differences(Vec<Row>);

/// What a comparison came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Checks with equal results.
    pub equal: usize,
    /// Checks that differ as a row says.
    pub documented: usize,
    /// A row for the table, for each check that differs otherwise.
    pub undocumented: Vec<String>,
    /// Rows that say something untrue: their checks are equal, or are not there.
    pub stale: Vec<String>,
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// A cell's list, without the marks of code.
fn list(cell: &str) -> Vec<String> {
    cell.split(',').map(|part| part.trim().trim_matches('`').to_owned()).collect()
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => text.starts_with(front),
        None => text == pattern,
    }
}

/// What the program prints, by check.
fn results(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once('\t')).collect()
}

/// A result as a table can hold it.
fn cell(result: Option<&&str>) -> String {
    let text = result.map_or("nothing", |text| text).trim_end();
    if text.is_empty() { "``".to_owned() } else { format!("`{}`", text.replace('|', "/")) }
}

impl Differences {
    /// Reads the tables of a Markdown text.
    ///
    /// # Panics
    ///
    /// When a row has not five cells.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut rows = Vec::new();
        let mut within = false;
        for line in text.lines() {
            let Some(cells) = cells(line) else {
                within = false;
                continue;
            };
            let first = cells.first().map(String::as_str).unwrap_or_default();
            if first == "Check" {
                within = true;
            } else if within && !first.starts_with("---") {
                let [checks, places, runc, husk, _reason] = cells.as_slice() else {
                    panic!("a row of differences has five cells: {line}");
                };
                let (checks, places) = (list(checks), list(places));
                rows.push(Row { checks, places, runc: runc.clone(), husk: husk.clone() });
            }
        }
        Self(rows)
    }

    /// Compares two outputs of the program. `place` is where Husk's comes from.
    #[must_use]
    pub fn compare(&self, place: &str, runc: &str, husk: &str) -> Verdict {
        let (runc, husk) = (results(runc), results(husk));
        let mut verdict = Verdict::default();
        let mut used = vec![false; self.0.len()];
        let mut names: Vec<&str> = runc.keys().chain(husk.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (left, right) = (runc.get(name), husk.get(name));
            if left == right {
                verdict.equal += 1;
                continue;
            }
            let (left, right) = (cell(left), cell(right));
            let says = |said: &str, seen: &str| said == "*" || said == seen;
            let row = self.0.iter().position(|row| {
                row.places.iter().any(|pattern| matches(pattern, place))
                    && row.checks.iter().any(|pattern| matches(pattern, name))
                    && says(&row.runc, &left)
                    && says(&row.husk, &right)
            });
            match row.and_then(|row| used.get_mut(row)) {
                Some(used) => {
                    *used = true;
                    verdict.documented += 1;
                }
                None => verdict.undocumented.push(format!("| `{name}` | {place} | {left} | {right} | |")),
            }
        }
        let here = self.0.iter().zip(used).filter(|(row, used)| !used && row.places.iter().any(|p| matches(p, place)));
        // A row for checks of another set says nothing here.
        let stale = here.filter(|(row, _)| row.checks.iter().any(|check| runc.keys().any(|name| matches(check, name))));
        verdict.stale = stale.map(|(row, _)| format!("{} on {place}", row.checks.join(", "))).collect();
        verdict
    }
}

impl Verdict {
    /// Says how it went; what is wrong, if anything is.
    #[must_use]
    pub fn tell(&self, place: &str) -> String {
        let (equal, documented, others) = (self.equal, self.documented, self.undocumented.len());
        let mut text =
            format!("{place}: {equal} equal, {documented} different (documented), {others} different (undocumented)");
        for row in &self.undocumented {
            let _ = write!(text, "\n{row}");
        }
        for row in &self.stale {
            let _ = write!(text, "\nno longer true: {row}");
        }
        text
    }

    /// Whether everything is as the table says.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.undocumented.is_empty() && self.stale.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
# Differences

| Other | table |
|---|---|
| a | b |

| Check | Place | runc | Husk | Why |
|---|---|---|---|---|
| `a/one`, `a/two` | virtio-fs, scratch | `ok` | `EPERM` | a reason |
| `b/*` | * | * | * | another |
";

    #[test]
    fn rows_excuse_what_they_name_and_nothing_else() {
        let table = Differences::parse(TEXT);
        let runc = "a/one\tok\na/two\tok\na/three\tok\nb/one\t1\nc\tsame\n";
        let husk = "a/one\tEPERM\na/two\tEIO\na/three\tEPERM\nb/one\t2\nc\tsame\n";
        let verdict = table.compare("virtio-fs", runc, husk);
        assert_eq!((verdict.equal, verdict.documented), (1, 2));
        assert_eq!(
            verdict.undocumented,
            ["| `a/three` | virtio-fs | `ok` | `EPERM` | |", "| `a/two` | virtio-fs | `ok` | `EIO` | |"]
        );
        assert!(verdict.stale.is_empty() && !verdict.is_good());
        assert_eq!(table.compare("elsewhere", runc, husk).documented, 1);
    }

    #[test]
    fn a_row_that_is_no_longer_true_is_named() {
        let table = Differences::parse(TEXT);
        let same = "a/one\tok\na/two\tok\n";
        assert_eq!(table.compare("scratch", same, same).stale, ["a/one, a/two on scratch"]);
        // Nothing of that set ran.
        assert!(table.compare("scratch", "z\t1\n", "z\t1\n").is_good());
    }

    #[test]
    fn a_check_that_one_side_lacks_is_a_difference() {
        let verdict = Differences::parse("").compare("scratch", "a\t1\n", "");
        assert_eq!(verdict.undocumented, ["| `a` | scratch | `1` | `nothing` | |"]);
    }
}
