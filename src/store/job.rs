//! What waits in a writer's queue.

use tokio::sync::oneshot;

use super::writer::{Tx, WriteError};

/// A piece of work in a writer's queue, and whoever waits for its outcome.
pub(super) trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn fail(&mut self, error: WriteError);
    fn finish(self: Box<Self>, commit: Result<(), WriteError>);
}

/// A job of its own type of outcome.
pub(super) struct Typed<T, F> {
    work: F,
    value: Option<T>,
    failure: Option<WriteError>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<T, F> Typed<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, WriteError>>) -> Self {
        Self {
            work,
            value: None,
            failure: None,
            reply,
        }
    }
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.failure = None;
        self.value = None;
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn fail(&mut self, error: WriteError) {
        self.failure = Some(error);
    }

    fn finish(self: Box<Self>, commit: Result<(), WriteError>) {
        let result = match (commit, self.failure, self.value) {
            (Err(error), _, _) | (Ok(()), Some(error), _) => Err(error),
            (Ok(()), None, Some(value)) => Ok(value),
            (Ok(()), None, None) => Err(WriteError::Closed),
        };
        // Whoever asked may have gone; the write stands all the same.
        let _ = self.reply.send(result);
    }
}
