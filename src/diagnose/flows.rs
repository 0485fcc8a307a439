//! The network contract, asked flow by flow, and who is to blame when one of them fails.

use std::fs;
use std::thread;

use serde::Serialize;

use super::checks::{Asked, Verdict};
use crate::config::{Config, WanConfig};
use crate::language::{Said, Sentence};
use crate::wan::contract::{CONTRACT, Flow, FlowId, Need};
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Cause, ProbeReport, Prober, Step, StepState, proofs};
use crate::wan::kept_credentials;
use crate::wan::time::PlatformTime;

/// How one flow stands.
#[derive(Debug, Clone, Serialize)]
pub struct FlowAnswer {
    /// Its name in the contract.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Sentence,
    /// `required`, `optional` or `recommended`.
    pub need: &'static str,
    /// The host of this shop's settings.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The proxy it goes through, `SCHEME://HOST:PORT`; `null`: directly.
    pub proxy: Option<String>,
    /// How it stands; `skipped`: this shop does not use it.
    pub verdict: Verdict,
    /// Stable code of the failure.
    pub cause: Option<&'static str>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// One sentence for the shop's staff.
    pub staff: Sentence,
    /// One action for whoever runs the network.
    pub action: Sentence,
    /// What was seen of the failure, for support.
    pub evidence: Vec<Proof>,
    /// The steps.
    pub steps: Vec<StepAnswer>,
    /// How far the box's clock is ahead of this host's, seconds.
    pub skew_s: Option<i64>,
    /// All steps together, milliseconds.
    pub took_ms: u64,
}

/// One step of a flow.
#[derive(Debug, Clone, Serialize)]
pub struct StepAnswer {
    /// `lookup`, `connect`, `tunnel`, `tls` or `answer`.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Milliseconds.
    pub took_ms: u64,
    /// What was seen.
    pub seen: Said,
}

/// Who is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// Stable kind.
    pub kind: Kind,
    /// Its own name, as it shows itself; empty when it has none.
    pub name: String,
    /// The same for people.
    pub said: Said,
}

/// Kinds of culprits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The box's own link to the network.
    Link,
    /// The name server.
    NameServer,
    /// Something that drops or rejects connections.
    Firewall,
    /// The shop's proxy.
    Proxy,
    /// Something that opens TLS on the way.
    Interceptor,
    /// A network's login page.
    CaptivePortal,
    /// The box's clock.
    Clock,
    /// The line to the internet.
    Line,
    /// The host itself.
    Host,
    /// The box's credentials.
    Credentials,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What it is.
    pub what: Sentence,
    /// As it was seen.
    pub value: String,
}

/// What the box may show to the hosts, by its settings and by what it was handed at enrolment.
pub(super) fn credentials(config: &Config) -> Credentials {
    let credentials = Credentials::from_settings(&config.site.site_id, &config.wan);
    credentials.grant(kept_credentials(&config.store.data_dir));
    credentials
}

/// Asks every flow this shop uses, all at the same time; or `only` one, used or not.
pub(super) fn ask(asked: &Asked, only: Option<FlowId>) -> Vec<FlowAnswer> {
    let config = &asked.config.wan;
    let credentials = credentials(&asked.config);
    let site_id = credentials.site_id().unwrap_or_default();
    // The machine's clock, as it is: a box's own time is in its server; a wrong clock is what a check should find.
    let time = PlatformTime::of_system();
    let (prober, _) = Prober::new(config, &site_id, credentials.api_token(), &time);
    let asking: Vec<_> = CONTRACT
        .iter()
        .filter(|flow| only.is_none_or(|only| only == flow.id))
        .map(|flow| {
            let wanted = only.is_some() || flow.id.is_used(config);
            let prober = prober.clone();
            (
                flow,
                wanted.then(|| thread::spawn(move || prober.probe(flow.id))),
            )
        })
        .collect();
    asking
        .into_iter()
        .filter_map(|(flow, asking)| match asking {
            Some(asking) => Some(answer(flow, asking.join().ok()?)),
            None => Some(unused(flow, config)),
        })
        .collect()
}

fn unused(flow: &Flow, config: &WanConfig) -> FlowAnswer {
    let url = flow.id.url(config);
    FlowAnswer {
        name: flow.name,
        purpose: flow.purpose(),
        need: need(flow.need),
        host: url.host().to_owned(),
        port: url.port(),
        proxy: None,
        verdict: Verdict::Skipped,
        cause: None,
        culprit: None,
        staff: Sentence::EMPTY,
        action: Sentence::EMPTY,
        evidence: Vec::new(),
        steps: Vec::new(),
        skew_s: None,
        took_ms: 0,
    }
}

fn answer(flow: &Flow, report: ProbeReport) -> FlowAnswer {
    let advice = report.cause.map(Cause::advice);
    let verdict = match (report.cause, flow.need) {
        (None, _) => Verdict::Ok,
        (Some(_), Need::Required) => Verdict::Failed,
        (Some(_), Need::Optional | Need::Recommended) => Verdict::Warning,
    };
    FlowAnswer {
        name: flow.name,
        purpose: flow.purpose(),
        need: need(flow.need),
        verdict,
        cause: report.cause.map(Cause::as_str),
        culprit: report.cause.map(|cause| culprit(cause, &report)),
        staff: advice.map_or(Sentence::EMPTY, |advice| advice.staff),
        action: advice.map_or(Sentence::EMPTY, |advice| advice.action),
        evidence: proofs(&report.evidence)
            .into_iter()
            .map(|(what, value)| Proof { what, value })
            .collect(),
        steps: report.steps.iter().map(step).collect(),
        skew_s: report.skew_s,
        took_ms: milliseconds(report.took),
        host: report.host,
        port: report.port,
        proxy: report.proxy,
    }
}

fn step(step: &Step) -> StepAnswer {
    StepAnswer {
        name: step.name.as_str(),
        verdict: match step.state {
            StepState::Ok => Verdict::Ok,
            StepState::Failed(_) => Verdict::Failed,
            StepState::Skipped => Verdict::Skipped,
        },
        took_ms: milliseconds(step.took),
        seen: step.seen.clone(),
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn need(need: Need) -> &'static str {
    match need {
        Need::Required => "required",
        Need::Optional => "optional",
        Need::Recommended => "recommended",
    }
}

/// Who is to blame for `cause`, named as it showed itself.
fn culprit(cause: Cause, report: &ProbeReport) -> Culprit {
    let evidence = &report.evidence;
    let host = format!("{}:{}", report.host, report.port);
    let signer = evidence.issuer.clone().unwrap_or_default();
    match cause {
        Cause::NoLink => blame(
            Kind::Link,
            String::new(),
            "the box's own link",
            "la liaison de la box",
        ),
        Cause::Dns | Cause::ResolveTimeout => blame(
            Kind::NameServer,
            name_servers(),
            "the name server",
            "le serveur DNS",
        ),
        Cause::TcpRefused | Cause::TcpTimeout | Cause::TlsTimeout | Cause::TlsCut => blame(
            Kind::Firewall,
            host,
            "a firewall on the way to",
            "un pare-feu sur le chemin de",
        ),
        Cause::ProxyUnreachable
        | Cause::ProxyTimeout
        | Cause::ProxyAuth
        | Cause::ProxyDigestOnly
        | Cause::ProxyNtlmOnly
        | Cause::ProxyScheme
        | Cause::ProxyDenied
        | Cause::ProxyFailed => {
            let name = report.proxy.clone().unwrap_or_default();
            let mut culprit = blame(Kind::Proxy, name, "the proxy", "le proxy");
            if let Some(said) = &evidence.proxy_said {
                culprit.said.en += &format!(", which says “{said}”");
                culprit.said.fr += &format!(", qui dit « {said} »");
            }
            culprit
        }
        Cause::OutsideContract => blame(
            Kind::Host,
            evidence.led_to.clone().unwrap_or(host),
            "whoever sends the box to",
            "celui qui envoie la box vers",
        ),
        Cause::CaptivePortal | Cause::Redirected => {
            let name = evidence.led_to.clone().unwrap_or(signer);
            blame(
                Kind::CaptivePortal,
                name,
                "the network's login page",
                "la page de connexion du réseau",
            )
        }
        Cause::TlsWrongHost => {
            let name = evidence.names.first().or(evidence.subject.as_ref());
            let name = name.cloned().unwrap_or(signer);
            blame(
                Kind::CaptivePortal,
                name,
                "whoever answers instead:",
                "celui qui répond à sa place :",
            )
        }
        Cause::TlsIntercepted
        | Cause::TlsUnknownIssuer
        | Cause::TlsBadCertificate
        | Cause::TlsTooOld
        | Cause::TlsOther => blame(
            Kind::Interceptor,
            signer,
            "whoever opens TLS on the way:",
            "celui qui ouvre TLS en chemin :",
        ),
        Cause::ClockSkew | Cause::TlsNotYetValid => {
            let name = evidence
                .skew_s
                .map_or_else(String::new, |skew_s| format!("{skew_s:+} s"));
            blame(Kind::Clock, name, "the box's clock", "l'horloge de la box")
        }
        Cause::Unauthorized | Cause::SasExpired => blame(
            Kind::Credentials,
            String::new(),
            "this box's credentials",
            "les identifiants de cette box",
        ),
        Cause::ConnectionLost
        | Cause::SendTimeout
        | Cause::FirstByteTimeout
        | Cause::Stalled
        | Cause::TotalTimeout
        | Cause::Slow
        | Cause::Stopped => blame(Kind::Line, host, "the line to", "la ligne vers"),
        Cause::TlsExpired | Cause::TlsRevoked => {
            let name = if signer.is_empty() { host } else { signer };
            blame(Kind::Host, name, "the certificate of", "le certificat de")
        }
        Cause::Throttled
        | Cause::Server
        | Cause::Quota
        | Cause::Forbidden
        | Cause::NotFound
        | Cause::Gone
        | Cause::Refused
        | Cause::TooLarge => blame(Kind::Host, host, "the host itself:", "l'hôte lui-même :"),
        Cause::BadAnswer => blame(
            Kind::Interceptor,
            host,
            "whoever answers instead of",
            "celui qui répond à la place de",
        ),
    }
}

fn blame(kind: Kind, name: String, en: &str, fr: &str) -> Culprit {
    let with_name = |who: &str| {
        format!("{who} {name}")
            .trim_end_matches([' ', ':'])
            .to_owned()
    };
    Culprit {
        kind,
        said: Said::new(with_name(en), with_name(fr)),
        name,
    }
}

/// Those the system asks (resolv.conf(5)).
pub(super) fn name_servers() -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .collect();
    servers.join(", ")
}
