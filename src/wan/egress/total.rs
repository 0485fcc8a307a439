//! The end of a whole request. A request runs on the thread that asked for it, from name to body, so the end that holds just
//! now is kept per thread and every wait below looks at it.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static END: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Puts the end back that held before, also when the work panics.
struct Restore(Option<Instant>);

impl Drop for Restore {
    fn drop(&mut self) {
        END.set(self.0);
    }
}

/// Does `work`, none of whose waits passes `end`; `None`: as long as it goes on.
pub(super) fn ending<T>(end: Option<Instant>, work: impl FnOnce() -> T) -> T {
    let _restore = Restore(END.replace(end));
    work()
}

/// The end that holds now.
pub(super) fn end() -> Option<Instant> {
    END.get()
}
