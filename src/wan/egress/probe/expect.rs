//! What each host of the contract must answer to a stranger, exactly: anything else is somebody in its place.
//!
//! | flow | question, without credentials | answer |
//! |---|---|---|
//! | api | `GET /v1/sites/{site}/feed?cursor=check` | 401, `WWW-Authenticate: Bearer`, `application/problem+json` (the platform's contract) |
//! | api, with the site's token | the same | 410, `application/problem+json`: the cursor is unknown, the token is not |
//! | bus, support | `POST /{entity}/messages/head?timeout=0` | 401, `<Error><Code>401</Code>` (Service Bus REST, "Peek-Lock Message") |
//! | media | `GET /comptoir-check/comptoir-check` | 4xx with `x-ms-error-code` and `x-ms-request-id` (Blob REST, "Status and error codes") |
//! | logs | `GET /v1/input/` | 400 to 499, no web page: the vendor documents no refusal |

use std::fmt::Write as _;

use super::message::Message;
use crate::identity::Secret;
use crate::language::Said;
use crate::wan::contract::FlowId;
use crate::wan::egress::Cause;

/// What the flow's host is asked.
pub(super) struct Question {
    flow: FlowId,
    verb: &'static str,
    path: String,
    token: Option<Secret>,
}

/// How an answer compares with what must come.
pub(super) type Judged = Result<Said, (Cause, Said)>;

impl Question {
    /// `site_id` may be empty, before enrolment; `token` is the site's for the API.
    pub(super) fn of(flow: FlowId, site_id: &str, token: Option<Secret>) -> Self {
        let site = if site_id.is_empty() { "-" } else { site_id };
        let (verb, path) = match flow {
            FlowId::Api => ("GET", format!("/v1/sites/{site}/feed?cursor=check")),
            FlowId::Bus | FlowId::Support => {
                ("POST", "/comptoir-check/messages/head?timeout=0".to_owned())
            }
            FlowId::Media => ("GET", "/comptoir-check/comptoir-check".to_owned()),
            FlowId::Logs => ("GET", "/v1/input/".to_owned()),
        };
        Self {
            flow,
            verb,
            path,
            token: token.filter(|token| flow == FlowId::Api && !token.is_empty()),
        }
    }

    /// The request's bytes.
    pub(super) fn request(&self, authority: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {}\r\nAccept: */*\r\n\
             Accept-Encoding: identity\r\nCache-Control: no-cache\r\nConnection: close\r\n",
            self.verb,
            self.path,
            super::USER_AGENT,
        );
        if self.verb == "POST" {
            head.push_str("Content-Length: 0\r\n");
        }
        if let Some(token) = &self.token {
            let _ = write!(head, "Authorization: Bearer {}\r\n", token.expose());
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Compares.
    pub(super) fn judge(&self, answer: &Message) -> Judged {
        let status = answer.status;
        if let Some(cause) = elsewhere(answer) {
            return Err((cause, answered(answer)));
        }
        if (500..600).contains(&status) || status == 429 {
            let cause = Cause::of_status(status).unwrap_or(Cause::Server);
            return Err((cause, answered(answer)));
        }
        let is_it = match self.flow {
            FlowId::Api => return self.judge_api(answer),
            FlowId::Bus | FlowId::Support => {
                status == 401 && answer.says("<Error><Code>401</Code>")
            }
            FlowId::Media => {
                (400..500).contains(&status)
                    && answer.header("x-ms-error-code").is_some()
                    && answer.header("x-ms-request-id").is_some()
            }
            FlowId::Logs => (400..500).contains(&status),
        };
        if is_it {
            return Ok(refuses_strangers(answer));
        }
        Err((Cause::BadAnswer, answered(answer)))
    }

    fn judge_api(&self, answer: &Message) -> Judged {
        let is_problem = answer.is_of_type("application/problem+json");
        match (answer.status, self.token.is_some()) {
            (410, true) if is_problem => Ok(Said::new(
                "it is the platform, and it accepts this box's token",
                "c'est la plateforme, et elle accepte le jeton de cette box",
            )),
            (401, false) if is_problem && answer.header("www-authenticate").is_some() => {
                Ok(refuses_strangers(answer))
            }
            (401, true) if is_problem => Err((Cause::Unauthorized, answered(answer))),
            (403, true) if is_problem => Err((Cause::Forbidden, answered(answer))),
            _ => Err((Cause::BadAnswer, answered(answer))),
        }
    }
}

/// Whether somebody on the way answers instead: a redirect, a web page, a demand to sign in.
fn elsewhere(answer: &Message) -> Option<Cause> {
    match answer.status {
        300..=399 | 511 => Some(Cause::CaptivePortal),
        // No host of the contract speaks HTML; a block page comes with 403 or 503, a login page with 200.
        200 if answer.is_of_type("text/html") => Some(Cause::CaptivePortal),
        _ if answer.is_of_type("text/html") => Some(Cause::BadAnswer),
        _ => None,
    }
}

fn refuses_strangers(answer: &Message) -> Said {
    let status = answer.status;
    Said::new(
        format!("it is the host: {status} to a stranger, as it must be"),
        format!("c'est bien l'hôte : {status} à un inconnu, comme il se doit"),
    )
}

fn answered(answer: &Message) -> Said {
    let words = answer.own_words();
    let kind = answer.header("content-type").unwrap_or("-");
    Said::new(
        format!("another answer than agreed: {words} ({kind})"),
        format!("une autre réponse que convenu : {words} ({kind})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(flow: FlowId, token: Option<&str>, answer: &str) -> Result<(), Cause> {
        let question = Question::of(flow, "shop-1", token.map(Secret::new));
        let mut stream = std::io::Cursor::new(Vec::new());
        let answer = answer.replace('\n', "\r\n");
        // The question is written first, the answer lies behind it.
        let request = question.request("host");
        stream.get_mut().extend_from_slice(&request);
        stream.get_mut().extend_from_slice(answer.as_bytes());
        let message = Message::exchange(&mut stream, &request).unwrap();
        question
            .judge(&message)
            .map(drop)
            .map_err(|(cause, _)| cause)
    }

    const PROBLEM: &str = "Content-Type: application/problem+json\n\n{}";

    #[test]
    fn each_hosts_own_refusal_is_known() {
        let refusal = format!("HTTP/1.1 401 x\nWWW-Authenticate: Bearer\n{PROBLEM}");
        assert_eq!(judge(FlowId::Api, None, &refusal), Ok(()));
        let gone = format!("HTTP/1.1 410 x\n{PROBLEM}");
        assert_eq!(judge(FlowId::Api, Some("t"), &gone), Ok(()));
        let bus =
            "HTTP/1.1 401 x\nContent-Type: application/xml\n\n<Error> <Code>401</Code><Detail>…";
        assert_eq!(judge(FlowId::Bus, None, bus), Ok(()));
        assert_eq!(judge(FlowId::Support, None, bus), Ok(()));
        let blob = "HTTP/1.1 404 x\nx-ms-error-code: ResourceNotFound\nx-ms-request-id: 1\n\n";
        assert_eq!(judge(FlowId::Media, None, blob), Ok(()));
        assert_eq!(judge(FlowId::Logs, None, "HTTP/1.1 404 x\n\n"), Ok(()));
    }

    #[test]
    fn anybody_else_is_found_out() {
        let login = "HTTP/1.1 302 x\nLocation: https://login/\n\n";
        let page = "HTTP/1.1 200 x\nContent-Type: text/html\n\n<html>";
        let block = "HTTP/1.1 403 x\nContent-Type: text/html; charset=utf-8\n\n<html>";
        for flow in [
            FlowId::Api,
            FlowId::Bus,
            FlowId::Media,
            FlowId::Logs,
            FlowId::Support,
        ] {
            assert_eq!(judge(flow, None, login), Err(Cause::CaptivePortal));
            assert_eq!(judge(flow, None, page), Err(Cause::CaptivePortal));
            assert_eq!(judge(flow, None, block), Err(Cause::BadAnswer));
            let fault = judge(flow, None, "HTTP/1.1 502 x\n\n");
            assert_eq!(fault, Err(Cause::Server));
            let nothing = judge(flow, None, "HTTP/1.1 204 x\n\n");
            assert_eq!(nothing, Err(Cause::BadAnswer));
        }
    }

    #[test]
    fn a_refused_token_is_told_from_an_open_way() {
        let refused = format!("HTTP/1.1 401 x\n{PROBLEM}");
        assert_eq!(
            judge(FlowId::Api, Some("t"), &refused),
            Err(Cause::Unauthorized)
        );
        let foreign = format!("HTTP/1.1 403 x\n{PROBLEM}");
        assert_eq!(
            judge(FlowId::Api, Some("t"), &foreign),
            Err(Cause::Forbidden)
        );
    }

    #[test]
    fn only_the_platform_is_shown_the_token() {
        let shown = |flow| {
            let request = Question::of(flow, "s", Some(Secret::new("geheim"))).request("h");
            String::from_utf8(request).unwrap().contains("geheim")
        };
        assert!(shown(FlowId::Api));
        for flow in [FlowId::Bus, FlowId::Media, FlowId::Logs, FlowId::Support] {
            assert!(!shown(flow));
        }
    }
}
