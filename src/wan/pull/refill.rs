//! The snapshot: a plan, then its parts, each taken up again at the byte where the last try ended.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::body::{JSON, LINES, decoded_bytes, expect_type, is_gzip};
use super::{Pull, URGENT_CLASS};
use crate::store::catalogue::{SnapshotEnd, SnapshotPlace, SnapshotRun};
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::egress::{Answer, EgressError, bad_answer};
use crate::wan::sas::percent_encoded;
use crate::wan::snapshot::{self, Items};
use crate::wan::wire::read_snapshot_plan;
use crate::wan::worker::{Life, Next, StepError};

/// A plan at most.
const MAX_PLAN: ByteSize = ByteSize::kib(256);
/// While the platform prepares a snapshot, it is asked again after its `Retry-After`, within these bounds.
const PREPARING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a part's answer continues what is there.
enum Answered {
    /// The body begins at this byte.
    From(u64),
    /// It is not the part that was begun.
    Changed(&'static str),
}

impl Pull {
    /// Asks for a snapshot's plan.
    pub(super) fn begin(&mut self) -> Result<Next, StepError> {
        let answer = self.api.get("/snapshot", true, Duration::ZERO)?.success()?;
        if answer.status() == 202 {
            let (least, most) = PREPARING;
            let wait = answer.retry_after().unwrap_or(least).clamp(least, most);
            return Ok(Next::Rest(wait));
        }
        let body = decoded_bytes(expect_type(answer, JSON)?, MAX_PLAN)?;
        let plan = read_snapshot_plan(&body)
            .map_err(|why| bad_answer(FlowId::Api, format!("no plan of a snapshot: {why}")))?;
        let run = self.catalogue.begin_snapshot(plan).wait()?;
        tracing::info!(
            event = "pull.snapshot_started",
            snapshot = run.plan.snapshot,
            documents = run.documents(),
            refetch = self.refetch
        );
        self.report.snapshot_begun();
        Ok(Next::Again)
    }

    /// Goes on with a snapshot: its next part, or its end.
    pub(super) fn take(&mut self, mut run: SnapshotRun, life: &Life) -> Result<Next, StepError> {
        let place = &run.place;
        let Some(part) = run.plan.parts.get(place.part).cloned() else {
            return self.finish(run);
        };
        let path = format!(
            "/snapshot/{}/{}",
            percent_encoded(&run.plan.snapshot),
            percent_encoded(&part.part)
        );
        if place.etag.is_none() {
            // Without a name for what was begun it can't be taken up: from the part's start.
            run.place.documents -= run.place.lines;
            run.place.bytes -= run.place.offset;
            (run.place.offset, run.place.lines) = (0, 0);
        }
        let resumed_at = run.place.offset;
        let answer = self
            .api
            .get_from(&path, resumed_at, run.place.etag.as_deref())?;
        if matches!(answer.status(), 404 | 410 | 416) {
            return self.start_over(&run, "the platform no longer has it");
        }
        let answer = expect_type(answer.success()?, LINES)?;
        let gzip = is_gzip(&answer)?;
        let from = match continues(&answer, &run.place, gzip)? {
            Answered::From(from) => from,
            Answered::Changed(why) => {
                return self.start_over(&run, why);
            }
        };
        if resumed_at > 0 {
            self.report.resumed(&part.part, resumed_at, from);
        }
        run.place.etag = strong_tag(&answer);
        run.place.gzip = gzip;
        let (mut reader, sort) = answer.into_reader();
        // A network that drops `Range` gives the whole part: what is kept is read over.
        pass_over(&mut reader, resumed_at - from).map_err(&sort)?;
        let lines = snapshot::lines(reader, gzip, resumed_at);
        let items = Items::new(lines, run.place.lines);
        if part.class != URGENT_CLASS && is_past_urgent(&run) {
            self.ahead.begin(&run.plan.cursor);
        }
        let ahead = &mut self.ahead;
        snapshot::take_part(
            items,
            &mut run,
            &self.catalogue,
            &mut self.report,
            life,
            |report| ahead.overtake(report).map_err(Box::new),
        )
        .map_err(|error| error.into_step(sort))?;
        tracing::info!(
            event = "pull.part_taken",
            part = part.part,
            class = part.class,
            documents = run.place.documents,
            bytes = run.place.bytes
        );
        Ok(Next::Again)
    }

    fn finish(&mut self, run: SnapshotRun) -> Result<Next, StepError> {
        let place = run.place.clone();
        match self.catalogue.finish_snapshot(run).wait()? {
            SnapshotEnd::Finished { swept } => {
                self.refetch = false;
                self.ahead.end();
                self.verify.soon();
                self.report.snapshot_finished(&place, self.swept + swept);
                self.swept = 0;
            }
            SnapshotEnd::More { swept } => self.swept += swept,
            // Only this worker takes snapshots, so it is a mistake in the code; the catalogue is as good as before.
            SnapshotEnd::Superseded => tracing::error!(event = "pull.snapshot_superseded"),
        }
        Ok(Next::Again)
    }

    /// The snapshot is not what was begun: what it brought stays and is served, and a new one is asked for.
    fn start_over(&mut self, run: &SnapshotRun, why: &'static str) -> Result<Next, StepError> {
        self.catalogue.drop_snapshot(run).wait()?;
        self.ahead.end();
        self.refetch = true;
        self.report.started_over(&run.plan.snapshot, why);
        Err(bad_answer(FlowId::Api, format!("the snapshot begins anew: {why}")).into())
    }
}

/// Whether all that is urgent was taken.
fn is_past_urgent(run: &SnapshotRun) -> bool {
    let left = run.plan.parts.iter().skip(run.place.part);
    left.into_iter().all(|part| part.class != URGENT_CLASS)
}

fn strong_tag(answer: &Answer) -> Option<String> {
    answer
        .header("etag")
        .filter(|tag| tag.starts_with('"'))
        .map(str::to_owned)
}

fn continues(answer: &Answer, place: &SnapshotPlace, gzip: bool) -> Result<Answered, EgressError> {
    let same = place.etag.is_none() || (strong_tag(answer) == place.etag && place.gzip == gzip);
    if !same {
        return Ok(Answered::Changed("it is another one now"));
    }
    match answer.status() {
        200 => Ok(Answered::From(0)),
        206 => {
            let start = answer.header("content-range").and_then(first_byte);
            if start == Some(place.offset) {
                Ok(Answered::From(place.offset))
            } else {
                Err(bad_answer(FlowId::Api, "another range than was asked for"))
            }
        }
        status => Err(bad_answer(FlowId::Api, format!("HTTP {status} to a range"))),
    }
}

/// Of `bytes 5-9/10`.
fn first_byte(range: &str) -> Option<u64> {
    let (first, _) = range.trim().strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

fn pass_over(reader: &mut impl Read, bytes: u64) -> io::Result<()> {
    let passed = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if passed < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// How long something took, for the log.
pub(super) fn seconds_since(start: Option<Instant>) -> f64 {
    start.map_or(0.0, |start| start.elapsed().as_secs_f64())
}
