//! Questions to the platform's API.

use std::time::Duration;

use ureq::http::Method;

use super::contract::FlowId;
use super::credentials::{ApiAccess, Credentials};
use super::egress::{Answer, Client, EgressError, Request, no_credentials};
use super::sas::percent_encoded;
use super::time::PlatformTime;
use crate::config::HttpsUrl;
use crate::identity::Secret;
use crate::telemetry::FlowBoard;

/// After a refusal, how long another token is waited for before the refusal counts.
const NEW_TOKEN_WAIT: Duration = Duration::from_secs(10);

/// The platform's API, for one site.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    url: HttpsUrl,
    credentials: Credentials,
    time: PlatformTime,
    board: FlowBoard,
}

/// A question below the site, before it is known who asks.
struct Question<'a> {
    method: Method,
    path: &'a str,
    headers: &'a [(&'static str, &'a str)],
    body: Option<&'a [u8]>,
    hold: Duration,
}

impl Api {
    pub(super) fn new(
        client: Client,
        url: &HttpsUrl,
        credentials: Credentials,
        time: PlatformTime,
    ) -> Self {
        Self {
            client,
            url: url.clone(),
            credentials,
            time,
            board: FlowBoard::default(),
        }
    }

    /// The same, telling a board that people see how quickly the platform answers.
    pub(super) fn with_board(mut self, board: FlowBoard) -> Self {
        self.board = board;
        self
    }

    /// `GET` below the site; a compressed answer is welcome when `gzip` is set.
    pub(super) fn get(
        &self,
        path_and_query: &str,
        gzip: bool,
        hold: Duration,
    ) -> Result<Answer, EgressError> {
        let encoding = if gzip { "gzip, identity" } else { "identity" };
        self.ask(&Question {
            method: Method::GET,
            path: path_and_query,
            headers: &[("accept-encoding", encoding)],
            body: None,
            hold,
        })
    }

    /// `GET` of a part of a resource from byte `from` on, if it still is what `etag` names; else all of it comes.
    pub(super) fn get_from(
        &self,
        path: &str,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Answer, EgressError> {
        let range = format!("bytes={from}-");
        let mut headers = vec![("accept-encoding", "gzip, identity")];
        if let Some(etag) = etag.filter(|_| from > 0) {
            headers.extend([("range", &*range), ("if-range", etag)]);
        }
        self.ask(&Question {
            method: Method::GET,
            path,
            headers: &headers,
            body: None,
            hold: Duration::ZERO,
        })
    }

    /// `POST` of a JSON body below the site, under an idempotency key.
    pub(super) fn post(
        &self,
        path: &str,
        idempotency_key: &str,
        body: &[u8],
    ) -> Result<Answer, EgressError> {
        self.ask(&Question {
            method: Method::POST,
            path,
            headers: &[
                ("idempotency-key", idempotency_key),
                ("content-type", "application/json"),
            ],
            body: Some(body),
            hold: Duration::ZERO,
        })
    }

    fn ask(&self, question: &Question<'_>) -> Result<Answer, EgressError> {
        let access = self.access()?;
        let answer = self.ask_as(&access, question)?;
        if answer.status() != 401 || !access.is_renewable {
            return Ok(answer);
        }
        self.credentials.refused(access.version);
        if !self.credentials.wait_change(access.version, NEW_TOKEN_WAIT) {
            return Ok(answer);
        }
        self.ask_as(&self.access()?, question)
    }

    fn access(&self) -> Result<ApiAccess, EgressError> {
        self.credentials
            .api()
            .ok_or_else(|| no_credentials(FlowId::Api))
    }

    fn ask_as(&self, access: &ApiAccess, question: &Question<'_>) -> Result<Answer, EgressError> {
        let authorization = Secret::new(format!("Bearer {}", access.token.expose()));
        let mut headers = vec![("authorization", authorization.expose())];
        headers.extend_from_slice(question.headers);
        let site = percent_encoded(&access.site_id);
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method: question.method.clone(),
            url: &format!("{}/v1/sites/{site}{}", self.url, question.path),
            headers: &headers,
            body: question.body,
            hold: question.hold,
        })?;
        if question.hold.is_zero() {
            let took = self.time.asked().saturating_sub(asked);
            let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
            self.board.answered_after_ms(took_ms);
        }
        let _ = self.time.observe(FlowId::Api, &answer, asked);
        Ok(answer)
    }
}
