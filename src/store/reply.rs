//! The answer to a write: awaited by tasks, waited for by threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::writer::WriteError;

/// The answer to a write, given after its commit. Threads call [`Reply::wait`], tasks `.await` it.
#[must_use = "a write is durable only once its reply says so"]
pub struct Reply<T>(Answer<T>);

enum Answer<T> {
    Known(Option<Result<T, WriteError>>),
    Coming(oneshot::Receiver<Result<T, WriteError>>),
}

impl<T> Reply<T> {
    pub(super) fn coming(answer: oneshot::Receiver<Result<T, WriteError>>) -> Self {
        Self(Answer::Coming(answer))
    }

    pub(super) fn known(result: Result<T, WriteError>) -> Self {
        Self(Answer::Known(Some(result)))
    }

    /// Blocks until the write is durable or refused.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Panics
    /// In a task: there the reply is awaited.
    pub fn wait(self) -> Result<T, WriteError> {
        match self.0 {
            Answer::Known(result) => result.unwrap_or(Err(WriteError::Closed)),
            Answer::Coming(answer) => answer.blocking_recv().unwrap_or(Err(WriteError::Closed)),
        }
    }
}

impl<T> Reply<T> {
    /// As [`Reply::wait`], at most `patience`; gives the reply back when the answer is not there by then.
    ///
    /// # Errors
    /// The reply itself: the write is still under way.
    pub fn wait_for(mut self, patience: Duration) -> Result<Result<T, WriteError>, Self> {
        let until = Instant::now() + patience;
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut context) {
                return Ok(answer);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self);
            }
            std::thread::park_timeout(left);
        }
    }
}

/// Wakes the thread that waits for a reply.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Unpin for Reply<T> {}

impl<T> Future for Reply<T> {
    type Output = Result<T, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Known(result) => Poll::Ready(result.take().unwrap_or(Err(WriteError::Closed))),
            Answer::Coming(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(WriteError::Closed))),
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_over_too_soon_gives_the_reply_back() {
        let (sender, answer) = oneshot::channel();
        let reply = Reply::coming(answer)
            .wait_for(Duration::from_millis(1))
            .unwrap_err();
        let waiting = std::thread::spawn(move || reply.wait_for(Duration::from_secs(30)));
        sender.send(Ok(7)).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().unwrap(), 7);
        let closed = Reply::<()>::known(Err(WriteError::Closed)).wait_for(Duration::ZERO);
        assert!(matches!(closed, Ok(Err(WriteError::Closed))));
    }
}
