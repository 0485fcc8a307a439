//! Errors as `application/problem+json` (RFC 9457): a stable `type` for programs, plain words for people.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Body};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong. The `type` is `urn:comptoir:` and the slug; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The problem's `type`.
            #[must_use]
            pub const fn urn(self) -> &'static str {
                match self { $(Self::$variant => concat!("urn:comptoir:", $slug),)* }
            }

            /// The answer's status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// A short sentence that is the same for every problem of this kind.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

kinds! {
    /// A parameter or body that can't be read.
    BadRequest = "bad-request", BAD_REQUEST, "The request can't be understood";
    /// A write without its key.
    IdempotencyKeyMissing = "idempotency-key-missing", BAD_REQUEST, "An Idempotency-Key header is needed";
    /// No token, or one nobody has.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A device token is needed";
    /// The pairing code is not this box's.
    CodeRefused = "pairing-code-refused", FORBIDDEN, "The pairing code is not right";
    /// No such path or thing.
    NotFound = "not-found", NOT_FOUND, "There is nothing here";
    /// The path exists, not for this method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "This path does not take that method";
    /// The body did not come in time.
    Timeout = "request-timeout", REQUEST_TIMEOUT, "The request did not arrive in time";
    /// The key was used for another body.
    KeyConflict = "idempotency-key-conflict", CONFLICT, "The Idempotency-Key was used for another request";
    /// The order id is taken.
    OrderExists = "order-exists", CONFLICT, "Another order has this id";
    /// The order can't go there from where it is.
    StateRefused = "state-refused", CONFLICT, "The order can't change to that state";
    /// The box has as many devices as it takes.
    DevicesFull = "devices-full", CONFLICT, "No further device can be paired";
    /// The cursor is too old or unknown.
    Refetch = "refetch", GONE, "The cursor is too old: read everything again";
    /// More body than the port takes.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "The request's body is too large";
    /// A body of the wrong kind.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON";
    /// A range outside the blob.
    RangeRefused = "range-not-satisfiable", RANGE_NOT_SATISFIABLE, "The range lies outside the file";
    /// The path belongs to another port.
    WrongPort = "wrong-port", MISDIRECTED_REQUEST, "This path belongs to another port";
    /// A JSON body that is not what the path takes.
    Unprocessable = "unprocessable", UNPROCESSABLE_ENTITY, "The document has a mistake";
    /// Slow down.
    TooMany = "too-many-requests", TOO_MANY_REQUESTS, "Too many attempts";
    /// A bug, or a damaged store.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The box made a mistake";
    /// A bound is reached; the same request will do later.
    Busy = "busy", SERVICE_UNAVAILABLE, "The box is busy";
    /// The data partition takes no writes.
    Storage = "storage", SERVICE_UNAVAILABLE, "The box can't store this now";
    /// The box is not ready to serve.
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "The box is not ready";
}

/// One problem, on its way to the client.
#[derive(Debug)]
pub struct Problem {
    /// What went wrong.
    pub kind: Kind,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of `kind`; `detail` says what exactly, without secrets or customers' data.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
        })
    }

    /// With a further member (RFC 9457 §3.2).
    #[must_use]
    pub fn with(mut self: Box<Self>, name: &str, value: impl Into<Value>) -> Box<Self> {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// With `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self: Box<Self>, seconds: u64) -> Box<Self> {
        self.header(header::RETRY_AFTER, seconds.into())
    }

    /// The answer; `instance` is the path that was asked.
    #[must_use]
    pub fn into_answer(self, instance: &str) -> Answer {
        let mut document = json!({
            "type": self.kind.urn(),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "detail": self.detail,
            "instance": instance,
        });
        if let Some(object) = document.as_object_mut() {
            object.extend(self.members);
        }
        let mut answer = Answer::new(Body::bytes(document.to_string().into_bytes()));
        *answer.status_mut() = self.kind.status();
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_type_of_its_own_and_an_error_status() {
        let mut urns: Vec<_> = Kind::ALL.iter().map(|kind| kind.urn()).collect();
        urns.sort_unstable();
        urns.dedup();
        assert_eq!(urns.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let status = kind.status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{kind:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_problem_says_what_where_and_how_to_go_on() {
        use http_body_util::BodyExt;
        let problem = Problem::new(Kind::WrongPort, "orders are on port 8001")
            .with("port", 8001)
            .retry_after(2);
        let answer = problem.into_answer("/v1/orders");
        assert_eq!(answer.status(), 421);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "2");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "type": "urn:comptoir:wrong-port", "title": "This path belongs to another port", "status": 421,
                "detail": "orders are on port 8001", "instance": "/v1/orders", "port": 8001,
            })
        );
    }
}
