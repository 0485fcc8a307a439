//! Questions to hawkBit's DDI API on the platform's required host.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::Method;

use super::documents::{Place, Places};
use crate::clock::Clock as _;
use crate::config::RolloutsConfig;
use crate::identity::Secret;
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Answer, Client, EgressError, Request, bad_answer, no_credentials};
use crate::wan::sas::percent_encoded;
use crate::wan::time::PlatformTime;

/// A longer answer is none of hawkBit's.
const MAX_ANSWER: ByteSize = ByteSize::kib(256);

/// What hawkBit calls the media types of its answers.
const ACCEPT: &str = "application/hal+json, application/json";

/// The API as this box sees it.
pub(super) struct Ddi {
    pub(super) client: Client,
    pub(super) media_client: Client,
    pub(super) places: Places,
    pub(super) credentials: Credentials,
    pub(super) config: RolloutsConfig,
    pub(super) box_id: String,
    pub(super) time: PlatformTime,
}

/// What the platform is told of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report<'a> {
    /// hawkBit's word: `proceeding`, `download`, `downloaded`, `scheduled`, `closed`, `rejected`.
    pub(super) execution: &'a str,
    /// `none`, `success`, `failure`.
    pub(super) finished: &'a str,
    /// Of a download, in per cent.
    pub(super) percent: Option<u8>,
    /// For people.
    pub(super) detail: &'a str,
}

impl Ddi {
    /// `https://HOST/TENANT/controller/v1/ID`
    fn base(&self) -> String {
        let id = match &*self.config.controller_id {
            "" => &self.box_id,
            id => id,
        };
        format!(
            "{}/{}/controller/v1/{}",
            self.places.api,
            percent_encoded(&self.config.tenant),
            percent_encoded(id)
        )
    }

    fn authorization(&self) -> Result<Secret, EgressError> {
        let token = if self.config.token.is_empty() {
            self.credentials.api_token()
        } else {
            Some(self.config.token.clone())
        };
        let token = token.ok_or_else(|| no_credentials(FlowId::Api))?;
        let scheme = self.config.token_kind.scheme();
        Ok(Secret::new(format!("{scheme} {}", token.expose())))
    }

    /// Asks what there is to do.
    pub(super) fn poll<T: DeserializeOwned>(&self) -> Result<T, EgressError> {
        self.read(&self.base())
    }

    /// Reads what `url` leads to: the API itself, or a link of its answer. The door follows no link away from its host.
    pub(super) fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T, EgressError> {
        let version = self.credentials.version();
        let authorization = self.authorization()?;
        let headers = [
            ("authorization", authorization.expose()),
            ("accept", ACCEPT),
        ];
        let answer = self.send(Method::GET, url, &headers, None)?;
        if answer.status() == 401 && self.config.token.is_empty() {
            // Where enrolment has handed the token out, it hands out another.
            self.credentials.refused(version);
        }
        let answer = answer.success()?;
        if !answer.is_of_type("application/hal+json") && !answer.is_of_type("application/json") {
            return Err(bad_answer(FlowId::Api, "a roll-out answer that is no JSON"));
        }
        let bytes = answer.bytes(MAX_ANSWER)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| bad_answer(FlowId::Api, format!("a roll-out answer: {error}")))
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, EgressError> {
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method,
            url,
            headers,
            body,
            hold: Duration::ZERO,
        })?;
        let _ = self.time.observe(FlowId::Api, &answer, asked);
        Ok(answer)
    }

    fn tell(&self, method: Method, path: &str, body: &Value) -> Result<Answer, EgressError> {
        let authorization = self.authorization()?;
        let headers = [
            ("authorization", authorization.expose()),
            ("accept", ACCEPT),
            ("content-type", "application/json"),
        ];
        let url = format!("{}/{path}", self.base());
        self.send(method, &url, &headers, Some(body.to_string().as_bytes()))
    }

    /// Tells what this box is.
    pub(super) fn put_config_data(&self, data: &Value) -> Result<(), EgressError> {
        let body = json!({"mode": "merge", "data": data});
        self.tell(Method::PUT, "configData", &body)?.success()?;
        Ok(())
    }

    /// Tells how an action stands; false when the platform does not know it any more.
    pub(super) fn report(
        &self,
        about: &str,
        action_id: &str,
        report: Report<'_>,
    ) -> Result<bool, EgressError> {
        let mut result = json!({"finished": report.finished});
        if let Some(percent) = report.percent {
            result["progress"] = json!({"cnt": percent, "of": 100});
        }
        let body = json!({
            "id": action_id,
            "timestamp": self.time.wall_ms(),
            "status": {
                "execution": report.execution,
                "result": result,
                "details": [report.detail],
            },
        });
        self.feedback(about, action_id, &body)
    }

    /// Answers a question for consent; false when the platform does not ask any more.
    pub(super) fn confirm(
        &self,
        action_id: &str,
        consent: bool,
        detail: &str,
    ) -> Result<bool, EgressError> {
        let word = if consent { "confirmed" } else { "denied" };
        let body = json!({"confirmation": word, "details": [detail]});
        self.feedback("confirmationBase", action_id, &body)
    }

    fn feedback(&self, about: &str, action_id: &str, body: &Value) -> Result<bool, EgressError> {
        let path = format!("{about}/{action_id}/feedback");
        let answer = self.tell(Method::POST, &path, body)?;
        match answer.status() {
            // Gone: not active any more. Not found: the action or the whole box was deleted there.
            404 | 410 => Ok(false),
            // Not in this state: nobody asks to cancel it any more.
            405 => Ok(false),
            _ => answer.success().map(|_| true),
        }
    }

    /// Asks for a bundle's bytes from `had` on, at the API or at the media host.
    pub(super) fn bundle(
        &self,
        url: &str,
        had: u64,
        etag: Option<&str>,
    ) -> Result<Answer, EgressError> {
        let range = format!("bytes={had}-");
        let mut headers = vec![("accept", "application/octet-stream")];
        if had > 0 {
            headers.push(("range", &range));
            if let Some(etag) = etag {
                headers.push(("if-match", etag));
            }
        }
        match self.places.of(url) {
            Ok(Place::Api) => {
                let authorization = self.authorization()?;
                headers.push(("authorization", authorization.expose()));
                self.send(Method::GET, url, &headers, None)
            }
            // And any other place, which the door refuses.
            Ok(Place::Media) | Err(_) => {
                let sas = self.credentials.media_sas();
                let signed = sas
                    .filter(|_| !url.contains('?'))
                    .map(|sas| Secret::new(format!("{url}?{}", sas.expose())));
                self.media_client.send(&Request {
                    method: Method::GET,
                    url: signed.as_ref().map_or(url, Secret::expose),
                    headers: &headers,
                    body: None,
                    hold: Duration::ZERO,
                })
            }
        }
    }
}
