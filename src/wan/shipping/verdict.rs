//! What an answer means for the batch that was sent.

use crate::wan::egress::Cause;

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The host has it.
    Taken,
    /// Too much at once: half of it is tried; one record alone is dropped.
    Halve,
    /// The host will never take it: dropped, counted, told.
    Drop,
    /// It waits: the host can't, or will not take anything of this box now.
    Wait(Cause),
}

/// Sorts an answer's status (Logmatic: any 2xx; Datadog: 202; Service Bus and Event Hubs: 201).
pub(super) fn of_status(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        413 => Verdict::Halve,
        // The address, the key or the entity is wrong: no batch would fare better, and none is at fault.
        401 | 403 | 404 | 405 | 407 | 410 => Verdict::Wait(
            Cause::of_status(status)
                .filter(|cause| *cause != Cause::Refused)
                .unwrap_or(Cause::NotFound),
        ),
        status => match Cause::of_status(status) {
            None => Verdict::Taken,
            Some(Cause::Refused) => Verdict::Drop,
            Some(cause) => Verdict::Wait(cause),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_verdict() {
        for status in [200, 201, 202, 204] {
            assert_eq!(of_status(status), Verdict::Taken);
        }
        assert_eq!(of_status(413), Verdict::Halve);
        for status in [400, 411, 415, 422] {
            assert_eq!(of_status(status), Verdict::Drop, "{status}");
        }
        for status in [302, 401, 403, 404, 405, 408, 410, 429, 500, 502, 503] {
            assert!(matches!(of_status(status), Verdict::Wait(_)), "{status}");
        }
        assert_eq!(of_status(401), Verdict::Wait(Cause::Unauthorized));
        assert_eq!(of_status(429), Verdict::Wait(Cause::Throttled));
    }
}
