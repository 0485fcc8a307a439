//! From the channels to the spools: one thread for both streams, so that a sender that waits for its host keeps nobody waiting.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{SharedSpool, ShippingParts, lock};
use crate::shutdown::Shutdown;
use crate::telemetry::outgoing::{CHANNEL_BOUND, Stream};
use crate::wan::outcome::Worker;

/// Between two looks into the channels: at most [`CHANNEL_BOUND`] events fit in between.
const PERIOD: Duration = Duration::from_millis(500);

/// The pump.
pub(in crate::wan) struct Pump {
    parts: ShippingParts,
    lines: Vec<Line>,
}

struct Line {
    worker: Worker,
    stream: Stream,
    spool: SharedSpool,
}

impl Pump {
    pub(in crate::wan) const fn new(parts: ShippingParts) -> Self {
        Self {
            parts,
            lines: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, worker: Worker, stream: Stream, spool: SharedSpool) {
        self.lines.push(Line {
            worker,
            stream,
            spool,
        });
    }

    /// Whether there is anything to pump.
    pub(in crate::wan) const fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }

    /// Until the shutdown; then what is left goes to the disk.
    pub(in crate::wan) fn run(self, shutdown: &Shutdown) {
        let mut ends = false;
        while !ends {
            ends = shutdown.wait(PERIOD);
            for line in &self.lines {
                self.turn(line, ends);
            }
        }
        self.parts.telemetry.sent.flush();
    }

    fn turn(&self, line: &Line, is_last: bool) {
        // Without a key nothing is collected beyond what is there already, and nothing of it is written.
        let is_on = self.parts.credentials.missing_for(line.worker).is_none();
        line.stream.set_open(is_on);
        let mut spool = lock(&line.spool);
        for fresh in line.stream.receiver.try_iter().take(CHANNEL_BOUND) {
            spool.take(fresh);
        }
        self.parts.at_this_moment(is_on, |moment| {
            if is_last {
                spool.close(moment);
            } else {
                spool.tend(moment);
            }
        });
        drop(spool);
        let untold = line.stream.dropped.load(Ordering::Relaxed);
        self.parts
            .telemetry
            .sent
            .update(line.worker.name(), |status| {
                status.on = is_on;
                status.untold = untold;
            });
    }
}
