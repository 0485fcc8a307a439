//! Answers in few words.

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::{self, Body};

/// An answer.
pub type Reply = Response<Body>;

/// Marks an answer that has nothing to give, for the record of requests.
#[derive(Debug, Clone, Copy)]
pub struct NothingNew;

/// An answer without a body.
pub fn empty(status: StatusCode) -> Reply {
    with_body(status, body::full(""))
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(value).expect("the emulator's own types are JSON");
    text_of(status, "application/json", text)
}

/// An answer with a body of the given type.
pub fn text_of(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<bytes::Bytes>,
) -> Reply {
    let mut reply = with_body(status, body::full(text));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer with this body and no further header.
pub fn with_body(status: StatusCode, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}

/// Sets a header; a value that cannot be one (control characters) is left out.
pub fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// An `application/problem+json` answer (RFC 9457).
pub fn problem(status: StatusCode, kind: &str, detail: &str) -> Reply {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'a str,
        title: &'a str,
        status: u16,
        detail: &'a str,
    }
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = Problem {
        r#type: &format!("urn:comptoir:{kind}"),
        title,
        status: status.as_u16(),
        detail,
    };
    let text = serde_json::to_vec(&problem).expect("a problem is JSON");
    text_of(status, "application/problem+json", text)
}
