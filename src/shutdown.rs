//! One signal that ends everything, for tasks and for threads.

use std::sync::Arc;
use std::time::Duration;

use std::sync::{Condvar, Mutex};
use tokio::sync::watch;

/// A handle on the end. Clones share one signal; once given it stays given.
#[derive(Debug, Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    given: Mutex<bool>,
    rung: Condvar,
    watch: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                given: Mutex::new(false),
                rung: Condvar::new(),
                watch: watch::Sender::new(false),
            }),
        }
    }
}

impl Shutdown {
    /// Gives the signal.
    pub fn trigger(&self) {
        *self
            .shared
            .given
            .lock()
            .expect("no holder of this lock panics") = true;
        self.shared.rung.notify_all();
        self.shared.watch.send_replace(true);
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.shared.watch.borrow()
    }

    /// For tasks: returns when the signal is given.
    pub async fn triggered(&self) {
        let mut watch = self.shared.watch.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = watch.wait_for(|given| *given).await;
    }

    /// For threads: waits at most `wait`; true when the signal was given.
    #[must_use]
    pub fn wait(&self, wait: Duration) -> bool {
        let given = self
            .shared
            .given
            .lock()
            .expect("no holder of this lock panics");
        let (given, _) = self
            .shared
            .rung
            .wait_timeout_while(given, wait, |given| !*given)
            .expect("no holder of this lock panics");
        *given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reaches_tasks_and_threads_and_stays_given() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.wait(Duration::ZERO));
        let thread = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait(Duration::from_secs(30))
        });
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.triggered().await }
        });
        shutdown.trigger();
        assert!(thread.join().unwrap());
        task.await.unwrap();
        shutdown.triggered().await;
        assert!(shutdown.is_triggered());
    }
}
