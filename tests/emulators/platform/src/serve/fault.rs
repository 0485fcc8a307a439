//! Faults a test arms: each hits the next `times` connections or requests of one flow, then it is spent.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Flow;

/// Most faults that may be armed at once; more are refused.
pub const MAX_ARMED: usize = 64;

/// What goes wrong. Written `refuse`, `reset_handshake`, `stall`, `stall_after_bytes:1000`, `truncate_after_bytes:1000`, `status:503`,
/// `slow:10000`, `lose_answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The connection is reset: a new one before its handshake, an open one at its next request.
    Refuse,
    /// A new connection is reset after the client's first words of its handshake.
    ResetHandshake,
    /// The request is read and never answered.
    Stall,
    /// The answer stops after so many bytes of its body, and the connection stays open.
    StallAfterBytes(u64),
    /// The answer breaks off after so many bytes of its body.
    TruncateAfterBytes(u64),
    /// This status is answered and nothing is done.
    Status(u16),
    /// 429 with so many seconds in `Retry-After`, as of a throttled Service Bus namespace.
    Throttle(u64),
    /// The answer's body comes at so many bytes a second.
    Slow(u64),
    /// The request is done, and the connection reset instead of an answer.
    LoseAnswer,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (
                name,
                Some(
                    number
                        .parse::<u64>()
                        .map_err(|_| format!("{number:?} is no number"))?,
                ),
            ),
            None => (text, None),
        };
        match (name, number) {
            ("refuse", None) => Ok(Self::Refuse),
            ("reset_handshake", None) => Ok(Self::ResetHandshake),
            ("stall", None) => Ok(Self::Stall),
            ("lose_answer", None) => Ok(Self::LoseAnswer),
            ("stall_after_bytes", Some(bytes)) => Ok(Self::StallAfterBytes(bytes)),
            ("truncate_after_bytes", Some(bytes)) => Ok(Self::TruncateAfterBytes(bytes)),
            ("status", Some(code @ 200..=599)) => {
                Ok(Self::Status(u16::try_from(code).expect("the range fits")))
            }
            ("throttle", Some(seconds)) => Ok(Self::Throttle(seconds)),
            ("slow", number) => Ok(Self::Slow(
                number.unwrap_or(DEFAULT_SLOW_BYTES_PER_S).max(1),
            )),
            _ => Err(format!("{text:?} is no fault")),
        }
    }
}

const DEFAULT_SLOW_BYTES_PER_S: u64 = 1000;

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => out.write_str("refuse"),
            Self::ResetHandshake => out.write_str("reset_handshake"),
            Self::Stall => out.write_str("stall"),
            Self::LoseAnswer => out.write_str("lose_answer"),
            Self::StallAfterBytes(bytes) => write!(out, "stall_after_bytes:{bytes}"),
            Self::TruncateAfterBytes(bytes) => write!(out, "truncate_after_bytes:{bytes}"),
            Self::Status(code) => write!(out, "status:{code}"),
            Self::Throttle(seconds) => write!(out, "throttle:{seconds}"),
            Self::Slow(rate) => write!(out, "slow:{rate}"),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An armed fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: Kind,
    /// On which flow.
    pub flow: Flow,
    /// How often it still happens.
    #[serde(default = "once")]
    pub times: u64,
    /// Only requests whose path holds this text (never whole connections).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

fn once() -> u64 {
    1
}

/// The armed faults.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    /// Arms one more; false at [`MAX_ARMED`].
    pub fn arm(&self, fault: Fault) -> bool {
        let mut armed = self.lock();
        let room = armed.len() < MAX_ARMED;
        if room && fault.times > 0 {
            armed.push(fault);
        }
        room
    }

    /// Disarms all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What is armed.
    pub fn list(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// Takes the fault of `kind` that hits a new connection of `flow`: `refuse` or `reset_handshake`, if it is armed.
    pub fn hit_connection(&self, flow: Flow, kind: Kind) -> bool {
        self.take(|fault| {
            fault.flow == flow
                && fault.fault == kind
                && fault.path.is_none()
                && fault.method.is_none()
        })
        .is_some()
    }

    /// Takes the fault that hits this request, if any.
    pub fn hit_request(&self, flow: Flow, method: &str, path: &str) -> Option<Kind> {
        self.take(|fault| {
            fault.flow == flow
                && fault.fault != Kind::ResetHandshake
                && fault.path.as_ref().is_none_or(|part| path.contains(part))
                && fault
                    .method
                    .as_ref()
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
        })
    }

    fn take(&self, hits: impl Fn(&Fault) -> bool) -> Option<Kind> {
        let mut armed = self.lock();
        let at = armed.iter().position(hits)?;
        let kind = armed[at].fault;
        armed[at].times -= 1;
        if armed[at].times == 0 {
            armed.remove(at);
        }
        Some(kind)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.0.lock().expect("no holder of the faults' lock panics")
    }
}

/// Events of a kind that are answered with a status instead of being stored, however they come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Of this kind.
    pub kind: String,
    /// With this status, 400 to 599.
    pub status: u16,
    /// How many of them still.
    #[serde(default = "once")]
    pub times: u64,
}

/// The armed refusals.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Vec<Refusal>>);

impl Refusals {
    /// Arms one more; false at [`MAX_ARMED`], or if it makes no sense.
    pub fn arm(&self, refusal: Refusal) -> bool {
        let mut armed = self.0.lock().expect("no holder of this lock panics");
        let fits = armed.len() < MAX_ARMED && (400..=599).contains(&refusal.status);
        if fits && refusal.times > 0 {
            armed.push(refusal);
        }
        fits
    }

    /// What is armed.
    pub fn list(&self) -> Vec<Refusal> {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Takes the refusal that hits an event of `kind`, if any.
    pub fn hit(&self, kind: &str) -> Option<StatusCode> {
        let mut armed = self.0.lock().expect("no holder of this lock panics");
        let at = armed.iter().position(|refusal| refusal.kind == kind)?;
        let status = StatusCode::from_u16(armed[at].status).ok();
        armed[at].times -= 1;
        if armed[at].times == 0 {
            armed.remove(at);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_spent_in_the_order_they_were_armed() {
        let faults = Faults::default();
        for text in [
            r#"{"fault":"status:503","flow":"api","times":2,"path":"/feed"}"#,
            r#"{"fault":"refuse","flow":"api"}"#,
        ] {
            assert!(faults.arm(serde_json::from_str(text).unwrap()));
        }
        assert_eq!(faults.hit_request(Flow::Bus, "GET", "/feed"), None);
        assert_eq!(
            faults.hit_request(Flow::Api, "GET", "/v1/feed"),
            Some(Kind::Status(503))
        );
        assert!(!faults.hit_connection(Flow::Api, Kind::ResetHandshake));
        assert!(faults.hit_connection(Flow::Api, Kind::Refuse));
        assert!(!faults.hit_connection(Flow::Api, Kind::Refuse));
        assert_eq!(faults.hit_request(Flow::Api, "GET", "/snapshot"), None);
        assert_eq!(
            faults.hit_request(Flow::Api, "GET", "/v1/feed"),
            Some(Kind::Status(503))
        );
        assert!(faults.list().is_empty());
    }

    #[test]
    fn names_are_read_back_as_written() {
        for text in [
            "refuse",
            "reset_handshake",
            "stall",
            "lose_answer",
            "truncate_after_bytes:7",
            "stall_after_bytes:7",
            "status:503",
            "throttle:2",
            "slow:10",
        ] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        for text in [
            "status",
            "status:900",
            "refuse:1",
            "truncate_after_bytes:x",
            "",
        ] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }
}
