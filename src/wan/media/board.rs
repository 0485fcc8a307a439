//! Where jobs are handed out and taken back: between the worker that plans and the threads that fetch.
//!
//! Bounds: the queue is a plan's ([`super::plan::QUEUE_BOUND`]), jobs in hand are as many as there are threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::aside::{Aside, Why};
use super::plan::Job;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::shutdown::Shutdown;
use crate::wan::way_back::WayBack;

/// A blob from this size on is large: large ones never hold all threads while a smaller one waits.
pub(super) const LARGE: u64 = 16 << 20;
/// The shutdown is looked for this often while a job is waited for.
const SLICE: Duration = Duration::from_millis(250);

/// The board.
pub(super) struct Board {
    state: Mutex<State>,
    rung: Condvar,
    threads: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    in_hand: Vec<InHand>,
    window_open: bool,
    host: Host,
    aside: Aside,
    news: News,
}

/// What a new plan should know.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// A job ended.
    pub(super) is_any: bool,
    /// An address does not give what it should, and there may be another one.
    pub(super) address_failed: bool,
}

/// A job that a thread has.
struct InHand {
    digest: Digest,
    urgent: bool,
    large: bool,
    /// It is asked to stop, for an urgent one.
    yields: bool,
    /// It is asked to stop, because nobody wants it any more.
    useless: bool,
}

/// The far side as a whole.
#[derive(Default)]
struct Host {
    failures: u32,
    /// It is left alone until then (monotonic).
    not_before: Duration,
    way: WayBack,
    /// The version of the credentials that it refused: with another one it is asked at once.
    refused_version: Option<u64>,
    /// The version of the credentials that it took last, unless it refused one since.
    taken_version: Option<u64>,
    /// When the platform was last asked for other credentials (monotonic).
    renewal_asked: Option<Duration>,
}

/// What a refusal of the site's signature means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This blob is not for this site; others may be.
    Blob,
    /// The signature is not taken at all.
    Signature {
        /// The platform is to be asked for another.
        wants_renewal: bool,
    },
}

/// Other credentials are asked for no more often than this, when the host does not say that the signature is over: a blob
/// that is never shown must not make the box renew for ever.
const RENEWAL_PAUSE: Duration = Duration::from_secs(3600);
/// The same when the host says so.
const RENEWAL_PAUSE_OVER: Duration = Duration::from_secs(60);

/// What is to be noted of a job that ended.
pub(super) enum Note {
    /// It is here, or not wanted any more.
    Done,
    /// It stopped on request; it goes on later.
    Stopped,
    /// It is set aside.
    Aside {
        why: Why,
        /// The state of the file that was transferred and is wrong.
        etag: Option<String>,
    },
}

impl Board {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            state: Mutex::default(),
            rung: Condvar::new(),
            threads,
        }
    }

    /// Puts up a new queue in place of the old one, and asks the `useless` ones in hand to stop.
    pub(super) fn offer(&self, queue: Vec<Job>, useless: &[Digest], window_open: bool) {
        let mut state = self.lock();
        state.window_open = window_open;
        for held in &mut state.in_hand {
            held.useless = useless.contains(&held.digest);
        }
        state.queue = queue
            .into_iter()
            .filter(|job| state.in_hand.iter().all(|held| held.digest != job.digest))
            .collect();
        state.make_way(self.threads);
        drop(state);
        self.rung.notify_all();
    }

    /// Waits for a job; `None` at the shutdown. `version` is that of the credentials, `returns` how often the way to a host
    /// came back.
    pub(super) fn take(
        &self,
        clock: &dyn Clock,
        version: impl Fn() -> u64,
        returns: impl Fn() -> u64,
        shutdown: &Shutdown,
    ) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if shutdown.is_triggered() {
                return None;
            }
            let now = clock.monotonic();
            if state.host.may_be_asked(now, version(), returns())
                && let Some(job) = state.pick(self.threads)
            {
                return Some(job);
            }
            let waited = self.rung.wait_timeout(state, SLICE);
            state = waited.expect("no holder of this lock panics").0;
        }
    }

    /// Whether the job in hand is to stop: nobody wants it any more, the window closed, or an urgent one needs its thread.
    pub(super) fn must_yield(&self, digest: &Digest) -> bool {
        let state = self.lock();
        let held = state.in_hand.iter().find(|held| held.digest == *digest);
        held.is_some_and(|held| {
            held.useless || (!held.urgent && (held.yields || !state.window_open))
        })
    }

    /// Takes a job back. For how long it is set aside, if it is.
    pub(super) fn finish(
        &self,
        job: &Job,
        note: Note,
        now: Duration,
        dice: u32,
    ) -> Option<Duration> {
        let mut state = self.lock();
        state.in_hand.retain(|held| held.digest != job.digest);
        state.news.is_any = true;
        let pause = match note {
            Note::Done => {
                state.aside.clear(&job.key);
                None
            }
            Note::Stopped => None,
            Note::Aside { why, etag } => {
                let is_address = matches!(why, Why::Missing | Why::Wrong);
                state.news.address_failed |= is_address && job.has_others;
                Some(state.aside.put(job.key, why, etag, now, dice))
            }
        };
        drop(state);
        self.rung.notify_all();
        pause
    }

    /// The host answered as it should.
    pub(super) fn host_answers(&self) {
        let host = &mut self.lock().host;
        (host.failures, host.not_before) = (0, Duration::ZERO);
        host.way.succeeded();
    }

    /// The host took the credentials of this version.
    pub(super) fn host_takes(&self, version: u64) {
        let host = &mut self.lock().host;
        (host.taken_version, host.refused_version) = (Some(version), None);
    }

    /// The host failed. It is to be left alone for `pause` of how often in a row; `way` notes what may end that earlier.
    pub(super) fn host_fails(
        &self,
        now: Duration,
        way: impl FnOnce(&mut WayBack),
        pause: impl Fn(u32) -> Duration,
    ) -> Duration {
        let mut state = self.lock();
        way(&mut state.host.way);
        state.host.failures = state.host.failures.saturating_add(1);
        let pause = pause(state.host.failures);
        state.host.not_before = now + pause;
        pause
    }

    /// The host refused the credentials of this version. One refusal among what it takes is the blob's matter, a second
    /// one, or one that says that the signature `is_over`, the signature's.
    pub(super) fn host_refuses(&self, version: u64, is_over: bool, now: Duration) -> Refusal {
        let host = &mut self.lock().host;
        if host.taken_version.take() == Some(version) && !is_over {
            return Refusal::Blob;
        }
        host.refused_version = Some(version);
        let pause = if is_over {
            RENEWAL_PAUSE_OVER
        } else {
            RENEWAL_PAUSE
        };
        let wants_renewal = host.renewal_asked.is_none_or(|at| now >= at + pause);
        if wants_renewal {
            host.renewal_asked = Some(now);
        }
        Refusal::Signature { wants_renewal }
    }

    /// There are other credentials than those it was refused with.
    pub(super) fn forgive_refusals(&self) {
        self.lock().aside.forgive_refusals();
    }

    /// Reads the set-asides.
    pub(super) fn with_aside<T>(&self, look: impl FnOnce(&Aside) -> T) -> T {
        look(&self.lock().aside)
    }

    /// What is being fetched.
    pub(super) fn in_hand(&self) -> Vec<Digest> {
        let state = self.lock();
        state.in_hand.iter().map(|held| held.digest).collect()
    }

    /// What happened since the last question.
    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut self.lock().news)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Host {
    fn may_be_asked(&mut self, now: Duration, version: u64, returns: u64) -> bool {
        if self.way.ends_wait(returns, now) {
            self.not_before = now;
        }
        now >= self.not_before
            || self
                .refused_version
                .is_some_and(|refused| refused != version)
    }
}

impl State {
    /// The first job, unless it is large and large ones have all threads but one: then the first smaller one, if there is
    /// one.
    fn pick(&mut self, threads: usize) -> Option<Job> {
        let large_in_hand = self.in_hand.iter().filter(|held| held.large).count();
        let only_small = threads > 1 && large_in_hand + 1 >= threads;
        let small = |job: &Job| job.size < LARGE || job.urgent;
        let at = if only_small {
            self.queue.iter().position(small).unwrap_or(0)
        } else {
            0
        };
        let job = self.queue.remove(at)?;
        self.in_hand.push(InHand {
            digest: job.digest,
            urgent: job.urgent,
            large: job.size >= LARGE,
            yields: false,
            useless: false,
        });
        Some(job)
    }

    /// Asks as many jobs in hand to stop as urgent ones wait without a thread, and one when large ones have all threads
    /// and a smaller one waits; those begun last first.
    fn make_way(&mut self, threads: usize) {
        let urgent = self.queue.iter().filter(|job| job.urgent).count();
        let free = threads.saturating_sub(self.in_hand.len());
        let asked = self.in_hand.iter().filter(|held| held.yields).count();
        let large = self.in_hand.iter().filter(|held| held.large).count();
        let all_are_large = threads > 1 && large == threads;
        let small_waits = self.queue.iter().any(|job| job.size < LARGE);
        let wanted = urgent.max(usize::from(all_are_large && small_waits));
        let others = self.in_hand.iter_mut().rev();
        for held in others
            .filter(|held| !held.urgent && !held.yields)
            .take(wanted.saturating_sub(free + asked))
        {
            held.yields = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backoff::Backoff;
    use crate::clock::ManualClock;
    use crate::wan::egress::{Cause, EgressError};

    fn job(n: u8, size: u64, urgent: bool) -> Job {
        let digest = Digest::of(&[n]);
        Job {
            digest,
            size,
            urgent,
            document: None,
            key: (digest, 0),
            has_others: true,
        }
    }

    struct Bench {
        board: Board,
        clock: Arc<ManualClock>,
    }

    impl Bench {
        fn new(threads: usize, jobs: &[Job]) -> Self {
            let board = Board::new(threads);
            board.offer(jobs.to_vec(), &[], true);
            Self {
                board,
                clock: Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH)),
            }
        }

        /// The next job that may be taken at once.
        fn take(&self, version: u64) -> Option<Job> {
            self.take_after(version, 0)
        }

        /// The same after the way came back so many times.
        fn take_after(&self, version: u64, returns: u64) -> Option<Job> {
            let mut state = self.board.lock();
            let now = self.clock.monotonic();
            let may = state.host.may_be_asked(now, version, returns);
            may.then(|| state.pick(self.board.threads)).flatten()
        }
    }

    #[test]
    fn large_ones_leave_a_thread_to_smaller_ones() {
        let large = [job(1, LARGE, false), job(2, LARGE, false)];
        let small = job(3, 10, false);
        let bench = Bench::new(2, &[large[0].clone(), large[1].clone(), small.clone()]);
        assert_eq!(bench.take(0), Some(large[0].clone()));
        assert_eq!(bench.take(0), Some(small.clone()));
        bench.board.finish(&small, Note::Done, Duration::ZERO, 0);
        // Without a smaller one the next large one is taken.
        assert_eq!(bench.take(0), Some(large[1].clone()));
        assert_eq!(bench.take(0), None);
        let late = job(4, 10, false);
        bench.board.offer(vec![late.clone()], &[], true);
        assert!(!bench.board.must_yield(&large[0].digest));
        assert!(bench.board.must_yield(&large[1].digest));
        let alone = Bench::new(1, &large);
        assert_eq!(alone.take(0), Some(large[0].clone()));
    }

    #[test]
    fn an_urgent_one_gets_a_thread_at_once_and_no_more_than_it_needs() {
        let (one, two, urgent) = (job(1, 10, false), job(2, 10, false), job(3, 10, true));
        let bench = Bench::new(2, &[one.clone(), two.clone()]);
        bench.take(0).unwrap();
        bench.take(0).unwrap();
        let yields = || {
            let [a, b] = [&one, &two].map(|job| bench.board.must_yield(&job.digest));
            (a, b)
        };
        assert_eq!(yields(), (false, false));
        bench.board.offer(vec![urgent.clone()], &[], true);
        bench.board.offer(vec![urgent.clone()], &[], true);
        assert_eq!(yields(), (false, true));
        bench.board.finish(&two, Note::Stopped, Duration::ZERO, 0);
        assert_eq!(bench.take(0), Some(urgent.clone()));
        assert!(!bench.board.must_yield(&urgent.digest));
        // The window closes: everything but the urgent one stops.
        bench.board.offer(Vec::new(), &[], false);
        assert_eq!(yields(), (true, false), "the second is in nobody's hand");
        assert!(!bench.board.must_yield(&urgent.digest));
        bench.board.offer(Vec::new(), &[urgent.digest], false);
        assert!(bench.board.must_yield(&urgent.digest), "nobody wants it");
    }

    #[test]
    fn a_host_in_trouble_is_left_alone_until_its_pause_ends_or_credentials_come() {
        let bench = Bench::new(2, &[job(1, 1, false), job(2, 1, false)]);
        let pause = |failures| Duration::from_secs(10 * u64::from(failures));
        let now = bench.clock.monotonic();
        let fails = || bench.board.host_fails(now, |_| (), pause);
        fails();
        assert_eq!(fails(), Duration::from_secs(20));
        assert_eq!(bench.take(1), None);
        bench.board.host_refuses(1, false, now);
        assert_eq!(bench.take(1), None);
        assert!(
            bench.take(2).is_some(),
            "other credentials are tried at once"
        );
        bench.clock.advance(Duration::from_secs(20));
        assert!(bench.take(1).is_some());
        bench.board.host_answers();
        assert_eq!(fails(), Duration::from_secs(10));
    }

    #[test]
    fn a_host_that_gave_no_answer_is_asked_when_the_way_is_back() {
        let bench = Bench::new(2, &[job(1, 1, false)]);
        let (second, now) = (Duration::from_secs(1), bench.clock.monotonic());
        let retry = Backoff::new(second, second).unwrap();
        let mut error = EgressError::new(Cause::TcpTimeout, "host", "");
        error.way_lost_at = Some(3);
        let no_answer = |way: &mut WayBack| way.failed(&error, now, retry, u32::MAX);
        bench.board.host_fails(now, no_answer, |_| 3600 * second);
        assert_eq!(bench.take_after(0, 4), None, "not at once");
        bench.clock.advance(second);
        assert_eq!(bench.take_after(0, 3), None, "it is not back");
        assert!(bench.take_after(0, 4).is_some());
    }

    #[test]
    fn one_refusal_is_the_blobs_two_are_the_signatures_and_renewals_are_seldom() {
        let board = Board::new(1);
        let at = Duration::from_secs;
        let asks = |wants_renewal| Refusal::Signature { wants_renewal };
        board.host_takes(1);
        assert_eq!(board.host_refuses(1, false, at(0)), Refusal::Blob);
        assert_eq!(board.host_refuses(1, false, at(1)), asks(true));
        // Renewed, and still refused: it is not asked for again soon.
        assert_eq!(board.host_refuses(2, false, at(100)), asks(false));
        board.host_takes(2);
        assert_eq!(
            board.host_refuses(2, true, at(101)),
            asks(true),
            "it says why"
        );
        assert_eq!(board.host_refuses(2, true, at(102)), asks(false));
        assert_eq!(board.host_refuses(3, false, at(102 + 3600)), asks(true));
    }

    #[test]
    fn what_is_in_hand_is_not_handed_out_twice() {
        let one = job(1, 1, false);
        let bench = Bench::new(2, std::slice::from_ref(&one));
        bench.take(0).unwrap();
        bench.board.offer(vec![one.clone()], &[], true);
        assert_eq!(bench.take(0), None);
        assert_eq!(bench.board.in_hand(), [one.digest]);
        bench.board.finish(&one, Note::Done, Duration::ZERO, 0);
        assert!(bench.board.take_news().is_any);
        assert_eq!(bench.board.take_news(), News::default());
        assert_eq!(bench.board.in_hand(), []);
    }
}
