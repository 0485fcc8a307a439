//! Do the hosts of the network contract answer?
//!
//! Asked through the one door out, so with the shop's proxy, certificate authorities and deadlines. Any answer of the host
//! itself counts: whether it likes our credentials is another question. Every flow is asked at the same time.

use std::thread;
use std::time::Duration;

use super::{Asked, Finding};
use crate::config::WanConfig;
use crate::wan::contract::{CONTRACT, Flow, FlowId};
use crate::wan::egress::{Cause, Egress, Method, Request};
use crate::wan::time::PlatformTime;

pub(super) fn ask(asked: &Asked) -> Finding {
    let config = &asked.config.wan;
    let time = PlatformTime::of_system();
    let (egress, unusable) = match Egress::new(config, &time) {
        Ok(made) => made,
        Err(error) => {
            return Finding::failed(error.to_string(), "correct wan.proxy in the site file");
        }
    };
    let mut seen: Vec<_> = unusable.iter().map(ToString::to_string).collect();
    let mut missed = !seen.is_empty();
    let flows = CONTRACT.iter().filter(|flow| is_used(flow.id, config));
    let asking: Vec<_> = flows
        .map(|flow| {
            let (egress, url) = (egress.clone(), format!("{}/", flow.id.url(config)));
            (flow, thread::spawn(move || answers(&egress, flow, &url)))
        })
        .collect();
    for (flow, asking) in asking {
        match asking.join() {
            Ok(Ok(())) => seen.push(format!("{} answers", flow.name)),
            Ok(Err(why)) => {
                missed = true;
                seen.push(format!("{} does not: {why}", flow.name));
            }
            Err(_) => {
                missed = true;
                seen.push(format!("{} could not be asked", flow.name));
            }
        }
    }
    let seen = seen.join("; ");
    if missed {
        return Finding::warning(
            seen,
            "the shop goes on with what the box holds; show this to whoever runs the network",
        );
    }
    Finding::ok(seen)
}

/// Flows that carry something on this box today; logs and support events come later.
fn is_used(flow: FlowId, config: &WanConfig) -> bool {
    match flow {
        FlowId::Api => true,
        FlowId::Bus => config.bus.enabled,
        FlowId::Media => config.media.enabled,
        FlowId::Logs | FlowId::Support => false,
    }
}

fn answers(egress: &Egress, flow: &Flow, url: &str) -> Result<(), String> {
    let request = Request {
        method: Method::GET,
        url,
        headers: &[],
        body: None,
        hold: Duration::ZERO,
    };
    let client = egress.client(flow.id);
    let answer = client.send(&request).map_err(|error| error.to_string())?;
    match Cause::of_status(answer.status()) {
        // A login page of somebody's network is no answer of the host.
        Some(Cause::Redirected) => Err(Cause::Redirected.text().to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    #[test]
    fn hosts_that_do_not_answer_are_named_with_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let finding = ask(&asked(dir.path()));
        assert_eq!(finding.verdict, Verdict::Warning);
        for flow in ["api", "bus", "media"] {
            assert!(
                finding.seen.contains(&format!("{flow} does not: ")),
                "{}",
                finding.seen
            );
        }
        assert!(finding.seen.contains("refused"), "{}", finding.seen);
    }
}
