//! How husk fails: one line with its causes, and what the user can do about it.

use std::fmt;

/// Exit codes that are husk's own, numbered as podman numbers them.
pub(crate) mod exit {
    /// husk itself failed: bad arguments, no such image, no KVM.
    pub(crate) const HUSK: u8 = 125;
    /// The command was found in the image but cannot be executed.
    pub(crate) const CANNOT_EXECUTE: u8 = 126;
    /// The command is not in the image.
    pub(crate) const NOT_FOUND: u8 = 127;
}

/// Carried in an [`anyhow::Error`]'s chain: what to do, shown on a line of its own.
#[derive(Debug)]
struct Hint(String);

impl fmt::Display for Hint {
    /// Nothing: a hint is not a part of the cause chain's text.
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Carried in an [`anyhow::Error`]'s chain: an exit code other than [`exit::HUSK`].
#[derive(Debug)]
struct ExitWith(u8);

impl fmt::Display for ExitWith {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Attaches advice and exit codes to results.
pub(crate) trait Advise<T> {
    /// What the user can do about this error.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
    /// The exit code of the process when this error ends it.
    fn exit_code(self, code: u8) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Hint(hint.into())))
    }

    fn exit_code(self, code: u8) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(ExitWith(code)))
    }
}

/// The exit code that `error` asks for.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<ExitWith>().map_or(exit::HUSK, |e| e.0)
}

/// The error as the user reads it: `husk: what: cause: cause`, then `hint: what to do`.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let mut line = String::from("husk: ");
    line.push_str(&causes(error));
    if let Some(hint) = error.downcast_ref::<Hint>() {
        line.push_str("\nhint: ");
        line.push_str(&hint.0);
    }
    line
}

/// The chain of causes on one line. A cause that its parent's text already ends with is not repeated.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|text| !text.is_empty()) {
        if line.ends_with(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_report_has_the_causes_on_one_line_and_the_hint_on_the_next() {
        let result: anyhow::Result<()> =
            Err(anyhow::anyhow!("connection refused")).context("cannot pull busybox").hint("is the registry up?");
        assert_eq!(
            report(&result.unwrap_err()),
            "husk: cannot pull busybox: connection refused\nhint: is the registry up?"
        );
    }

    #[test]
    fn the_exit_code_is_125_unless_the_error_carries_another() {
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 125);
        let with: anyhow::Result<()> = Err(anyhow::anyhow!("x")).exit_code(exit::NOT_FOUND).hint("look");
        let error = with.context("outer").unwrap_err();
        assert_eq!(exit_code(&error), 127);
        assert_eq!(report(&error), "husk: outer: x\nhint: look");
    }

    #[test]
    fn a_cause_already_in_its_parents_text_is_not_said_twice() {
        let error = anyhow::anyhow!("no such file").context("cannot open /x: no such file");
        assert_eq!(causes(&error), "cannot open /x: no such file");
    }
}
