//! Requests to the box, one connection each.

use std::io;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer, the restart of a hung server included.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listened.
    Refused,
    /// Anything else: cut in the middle, too late.
    Other(String),
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .timeout_global(Some(ANSWER_WITHIN))
        .build()
        .into()
}

fn answer(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, NoAnswer> {
    let no_answer = |error: ureq::Error| match &error {
        ureq::Error::Io(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            NoAnswer::Refused
        }
        ureq::Error::ConnectionFailed => NoAnswer::Refused,
        _ => NoAnswer::Other(error.to_string()),
    };
    let mut response = result.map_err(no_answer)?;
    Ok(Answer {
        status: response.status().as_u16(),
        body: response.body_mut().read_to_string().map_err(no_answer)?,
    })
}

pub fn get(url: &str, token: Option<&str>) -> Result<Answer, NoAnswer> {
    let mut request = agent().get(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    answer(request.call())
}

/// A request that must be answered with success.
pub fn send(method: &str, url: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .body(body.into())
        .unwrap();
    let answer = answer(agent().run(request)).unwrap();
    assert!(answer.status < 300, "{method} {url}: {answer:?}");
    answer
}

/// A POST of JSON; `key` is the `Idempotency-Key`.
pub fn post(
    url: &str,
    token: Option<&str>,
    key: Option<&str>,
    body: &Value,
) -> Result<Answer, NoAnswer> {
    let mut request = agent().post(url).header("Content-Type", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    answer(request.send(body.to_string()))
}
