//! Questions to the platform's API.

use std::time::Duration;

use ureq::http::Method;

use super::egress::{Answer, Client, EgressError, Request};
use super::sas::percent_encoded;
use super::time::PlatformTime;
use crate::config::HttpsUrl;
use crate::identity::Secret;

/// The platform's API, for one site.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    base: String,
    authorization: Secret,
    time: PlatformTime,
}

impl Api {
    pub(super) fn new(
        client: Client,
        url: &HttpsUrl,
        site_id: &str,
        token: &Secret,
        time: PlatformTime,
    ) -> Self {
        Self {
            client,
            base: format!("{url}/v1/sites/{}", percent_encoded(site_id)),
            authorization: Secret::new(format!("Bearer {}", token.expose())),
            time,
        }
    }

    /// `GET` below the site; a compressed answer is welcome when `gzip` is set.
    pub(super) fn get(
        &self,
        path_and_query: &str,
        gzip: bool,
        hold: Duration,
    ) -> Result<Answer, EgressError> {
        let encoding = if gzip { "gzip, identity" } else { "identity" };
        let headers = [
            ("authorization", self.authorization.expose()),
            ("accept-encoding", encoding),
        ];
        self.send(&Request {
            method: Method::GET,
            url: &format!("{}{path_and_query}", self.base),
            headers: &headers,
            body: None,
            hold,
        })
    }

    /// `POST` of a JSON body below the site, under an idempotency key.
    pub(super) fn post(
        &self,
        path: &str,
        idempotency_key: &str,
        body: &[u8],
    ) -> Result<Answer, EgressError> {
        let headers = [
            ("authorization", self.authorization.expose()),
            ("idempotency-key", idempotency_key),
            ("content-type", "application/json"),
        ];
        self.send(&Request {
            method: Method::POST,
            url: &format!("{}{path}", self.base),
            headers: &headers,
            body: Some(body),
            hold: Duration::ZERO,
        })
    }

    fn send(&self, request: &Request<'_>) -> Result<Answer, EgressError> {
        let answer = self.client.send(request)?;
        self.time.observe(answer.date());
        Ok(answer)
    }
}
