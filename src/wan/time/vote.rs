//! What the hosts say, put together: who agrees with whom.

use std::time::Duration;

use super::Quality;
use crate::wan::contract::FlowId;

/// Hosts within this agree: `Date` has whole seconds, and an answer may take two.
pub(super) const AGREE_MS: i64 = 5000;
/// What a box's monotonic clock may be off after [`SAMPLE_LIFE`] (100 ppm).
pub(super) const DRIFT_MS: i64 = 2000;
/// A host's word counts this long.
const SAMPLE_LIFE: Duration = Duration::from_secs(6 * 3600);

/// What one host said. Hosts are told apart by their flow: one host each, so the list is bounded by the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Sample {
    pub(in super::super) flow: FlowId,
    /// Its time less our monotonic time.
    pub(in super::super) base_ms: i64,
    /// Monotonic.
    pub(in super::super) at: Duration,
}

/// What all together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vote {
    pub(super) base_ms: i64,
    pub(super) quality: Quality,
}

/// Takes `sample` in place of what its host said before, and drops what is too old.
pub(super) fn put(samples: &mut Vec<Sample>, sample: Sample, now: Duration) {
    samples.retain(|old| old.flow != sample.flow && old.at + SAMPLE_LIFE > now);
    samples.push(sample);
}

/// The largest group that agrees: of two or more, good; of one, weak. Between groups of one size nobody can tell, so the
/// one with the required host goes first, and is weak.
pub(super) fn count(samples: &[Sample]) -> Option<Vote> {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| sample.base_ms);
    let groups: Vec<&[Sample]> = (0..sorted.len())
        .map(|start| {
            let end_ms = sorted[start].base_ms + AGREE_MS;
            let len = sorted[start..].partition_point(|sample| sample.base_ms <= end_ms);
            &sorted[start..start + len]
        })
        .collect();
    let has_required = |group: &[Sample]| group.iter().any(|sample| sample.flow == FlowId::Api);
    let best = groups
        .iter()
        .max_by_key(|group| (group.len(), has_required(group)))?;
    let is_rivalled = groups.iter().any(|group| {
        let apart = group[0].base_ms > best[best.len() - 1].base_ms
            || group[group.len() - 1].base_ms < best[0].base_ms;
        group.len() == best.len() && apart
    });
    let middle = best.len() / 2;
    let base_ms = if best.len() % 2 == 0 {
        best[middle - 1].base_ms.midpoint(best[middle].base_ms)
    } else {
        best[middle].base_ms
    };
    Some(Vote {
        base_ms,
        quality: if best.len() > 1 && !is_rivalled {
            Quality::Good
        } else {
            Quality::Weak
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(said: &[(FlowId, i64)]) -> Option<(i64, Quality)> {
        let samples: Vec<_> = said
            .iter()
            .map(|(flow, base_ms)| Sample {
                flow: *flow,
                base_ms: *base_ms,
                at: Duration::ZERO,
            })
            .collect();
        count(&samples).map(|vote| (vote.base_ms, vote.quality))
    }

    #[test]
    fn one_host_is_weak_and_two_that_agree_are_good() {
        assert_eq!(vote(&[]), None);
        assert_eq!(vote(&[(FlowId::Bus, 7)]), Some((7, Quality::Weak)));
        assert_eq!(
            vote(&[(FlowId::Bus, 0), (FlowId::Api, 4000)]),
            Some((2000, Quality::Good))
        );
    }

    #[test]
    fn a_host_that_lies_is_outvoted_whichever_it_is() {
        let year = 365 * 24 * 3_600_000;
        for liar in [FlowId::Api, FlowId::Bus, FlowId::Media] {
            let said = [FlowId::Api, FlowId::Bus, FlowId::Media]
                .map(|flow| (flow, if flow == liar { year } else { 1000 }));
            assert_eq!(vote(&said), Some((1000, Quality::Good)), "{liar:?}");
        }
    }

    #[test]
    fn two_that_disagree_are_no_majority_and_the_required_host_goes_first() {
        let said = [(FlowId::Bus, 0), (FlowId::Api, 60_000)];
        assert_eq!(vote(&said), Some((60_000, Quality::Weak)));
        // Two against two.
        let said = [
            (FlowId::Bus, 0),
            (FlowId::Media, 1000),
            (FlowId::Api, 60_000),
            (FlowId::Logs, 61_000),
        ];
        assert_eq!(vote(&said), Some((60_500, Quality::Weak)));
    }

    #[test]
    fn a_host_has_one_voice_and_its_word_grows_old() {
        let at = |flow, base_ms, hours: u64| Sample {
            flow,
            base_ms,
            at: Duration::from_secs(hours * 3600),
        };
        let mut samples = Vec::new();
        put(&mut samples, at(FlowId::Api, 1, 0), Duration::ZERO);
        put(
            &mut samples,
            at(FlowId::Api, 2, 1),
            Duration::from_secs(3600),
        );
        assert_eq!(samples, [at(FlowId::Api, 2, 1)]);
        let late = Duration::from_secs(8 * 3600);
        put(&mut samples, at(FlowId::Bus, 3, 8), late);
        assert_eq!(samples, [at(FlowId::Bus, 3, 8)]);
    }
}
