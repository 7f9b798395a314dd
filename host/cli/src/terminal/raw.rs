//! The user's terminal in raw mode, given back as it was, whatever happens.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was. Kept where the panic hook finds it: a panic must not leave the shell without echo.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of standard input; dropping it gives the terminal back.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// # Errors
    ///
    /// When standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut kept) = BEFORE.lock() {
            kept.get_or_insert(before);
        }
        let guard = Self(());
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it was taken. Safe to call at any time.
pub(crate) fn restore() {
    // A panic while the lock was held poisons it; the value is as good as before.
    let mut kept = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(before) = kept.take() {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// Makes panics give the terminal back before they print.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Rows and columns of the user's terminal.
pub(crate) fn window_size() -> Option<(u32, u32)> {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map(|size| (size.ws_row.into(), size.ws_col.into()))
}
