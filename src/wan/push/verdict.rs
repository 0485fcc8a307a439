//! What an HTTP status says about an event.

use crate::wan::egress::Cause;
use crate::wan::outcome::is_refusal;

/// What is done with an item after a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sent,
    /// The platform will never take it.
    Park(Cause),
    /// The platform stumbled over it.
    RetryItem(Cause),
    /// The platform, or the way to it, takes nothing now.
    LaneWaits(Cause),
}

pub(super) fn verdict(status: u16) -> Verdict {
    match (status, Cause::of_status(status)) {
        (_, None) => Verdict::Sent,
        (502 | 504, Some(cause)) => Verdict::LaneWaits(cause),
        (_, Some(cause)) if is_refusal(cause) => Verdict::LaneWaits(cause),
        (_, Some(cause @ Cause::Server)) => Verdict::RetryItem(cause),
        (_, Some(cause)) if cause.is_retryable() => Verdict::LaneWaits(cause),
        (_, Some(cause)) => Verdict::Park(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_verdict() {
        for status in [200, 201, 204] {
            assert_eq!(verdict(status), Verdict::Sent);
        }
        for status in [400, 404, 409, 410, 413, 422] {
            assert!(matches!(verdict(status), Verdict::Park(_)), "{status}");
        }
        for status in [302, 401, 403, 408, 425, 429, 502, 503, 504] {
            assert!(matches!(verdict(status), Verdict::LaneWaits(_)), "{status}");
        }
        for status in [500, 501, 507] {
            assert!(matches!(verdict(status), Verdict::RetryItem(_)), "{status}");
        }
    }
}
