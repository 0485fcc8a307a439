//! `comptoir check` as a whole: the questions about the box and the flows of the contract, and what they come to.

use std::thread;

use jiff::Timestamp;
use serde::Serialize;

use super::checks::{self, Answer, Asked, Verdict};
use super::flows::{self, FlowAnswer};
use crate::version;
use crate::wan::contract::FlowId;

/// What `schema` says in the JSON form: `docs/check.schema.json`. It is raised when a field changes its meaning or goes.
pub const SCHEMA: &str = "comptoir.check/1";

/// What the answers come to; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 0
    Well,
    /// 1: something the shop can do without for a while, outside or of the box.
    OptionalImpaired,
    /// 2: a flow the box is of no use for long without.
    RequiredImpaired,
    /// 3: the box itself.
    BoxImpaired,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

/// All answers.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The firmware.
    pub version: &'static str,
    /// Which shop; empty before enrolment.
    pub site_id: String,
    /// When, by the box's own clock, RFC 3339.
    pub at: String,
    /// What it comes to.
    pub outcome: Outcome,
    /// Its number.
    pub exit_code: u8,
    /// The box's own questions.
    pub checks: Vec<Answer>,
    /// The flows of the network contract.
    pub flows: Vec<FlowAnswer>,
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The box and every flow it uses.
    Everything,
    /// One flow, also one that this shop does not use.
    Flow(FlowId),
}

impl Report {
    /// Asks everything at once; it takes less than ten seconds whatever hangs.
    #[must_use]
    pub fn make(asked: &Asked, scope: Scope) -> Self {
        let (checks, flows) = match scope {
            Scope::Flow(flow) => {
                // Settings that are refused are not the ones that were asked about.
                let refused = asked.refused.is_some();
                let checks = refused.then(|| checks::ask_settings(asked));
                (Vec::from_iter(checks), flows::ask(asked, Some(flow)))
            }
            Scope::Everything => {
                let about_box = thread::spawn({
                    let asked = asked.clone();
                    move || checks::ask_all(&asked)
                });
                let flows = flows::ask(asked, None);
                let mut checks = about_box.join().unwrap_or_default();
                checks.push(checks::ask_clock(asked, skew_s(&flows)));
                (checks, flows)
            }
        };
        let outcome = outcome(&checks, &flows);
        Self {
            schema: SCHEMA,
            version: version::running(),
            site_id: flows::credentials(&asked.config)
                .site_id()
                .unwrap_or_default(),
            at: now_to_the_second(),
            outcome,
            exit_code: outcome.exit_code(),
            checks,
            flows,
        }
    }
}

fn now_to_the_second() -> String {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now).map_or_else(|_| String::new(), |at| at.to_string())
}

/// The median of what the hosts say: one of them may lie.
fn skew_s(flows: &[FlowAnswer]) -> Option<i64> {
    let mut skews: Vec<i64> = flows.iter().filter_map(|flow| flow.skew_s).collect();
    skews.sort_unstable();
    skews.get(skews.len() / 2).copied()
}

fn outcome(checks: &[Answer], flows: &[FlowAnswer]) -> Outcome {
    let of_box = checks.iter().map(|answer| match answer.verdict {
        Verdict::Ok | Verdict::Skipped => Outcome::Well,
        Verdict::Warning => Outcome::OptionalImpaired,
        Verdict::Failed => Outcome::BoxImpaired,
    });
    let of_flows = flows.iter().map(|flow| match flow.verdict {
        Verdict::Ok | Verdict::Skipped => Outcome::Well,
        Verdict::Warning => Outcome::OptionalImpaired,
        Verdict::Failed => Outcome::RequiredImpaired,
    });
    of_box.chain(of_flows).max().unwrap_or(Outcome::Well)
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::asked;
    use super::*;

    #[test]
    fn a_box_cut_off_is_impaired_where_it_must_reach_out() {
        let dir = tempfile::tempdir().unwrap();
        let report = Report::make(&asked(dir.path()), Scope::Everything);
        assert_eq!(
            report.outcome,
            Outcome::RequiredImpaired,
            "{:?}",
            report.checks
        );
        let of = |name| report.flows.iter().find(|flow| flow.name == name).unwrap();
        assert_eq!(of("api").verdict, Verdict::Failed);
        assert_eq!(of("api").cause, Some("tcp_refused"));
        assert_eq!(of("media").verdict, Verdict::Warning);
        let last = of("api").steps.last().unwrap();
        assert_eq!((last.name, last.verdict), ("answer", Verdict::Skipped));
        let one = Report::make(&asked(dir.path()), Scope::Flow(FlowId::Logs));
        assert_eq!(one.outcome, Outcome::OptionalImpaired);
        assert_eq!((one.flows.len(), one.checks.len()), (1, 0));
    }

    #[test]
    fn the_box_itself_outweighs_what_lies_outside() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = asked(dir.path());
        asked.refused = Some("site.toml:2: …".to_owned());
        for scope in [Scope::Everything, Scope::Flow(FlowId::Logs)] {
            assert_eq!(Report::make(&asked, scope).exit_code, 3);
        }
    }
}
