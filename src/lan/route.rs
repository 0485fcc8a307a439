//! The route table: every path, the port it belongs to, and what answers it.

use std::borrow::Cow;

use hyper::Method;
use hyper::header::{self, HeaderValue};

use super::problem::{Kind, Problem};
use super::request::{bad, decode};
use crate::config::LanPort;

/// What a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET and HEAD.
    Read,
    /// POST.
    Send,
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each one is")]
pub enum Endpoint {
    Page,
    Live,
    Ready,
    WellKnown,
    Status,
    OpenApi,
    Documents,
    Document,
    Barcode,
    Changes,
    SubmitOrder,
    Orders,
    Order,
    AdvanceOrder,
    Events,
    Media,
    Pair,
    Heartbeat,
    Receipt,
    Metrics,
    Checks,
    /// What left for support lately.
    Sent,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The port that answers.
    pub port: LanPort,
    /// What it takes.
    pub verb: Verb,
    /// The path; `{name}` stands for one segment.
    pub pattern: &'static str,
    /// What answers.
    pub endpoint: Endpoint,
}

const fn read(port: LanPort, pattern: &'static str, endpoint: Endpoint) -> Route {
    Route {
        port,
        verb: Verb::Read,
        pattern,
        endpoint,
    }
}

const fn send(port: LanPort, pattern: &'static str, endpoint: Endpoint) -> Route {
    Route {
        port,
        verb: Verb::Send,
        pattern,
        endpoint,
    }
}

/// Every route there is. The most asked ones of a port come first.
pub const ROUTES: &[Route] = &[
    read(LanPort::Front, "/", Endpoint::Page),
    read(LanPort::Front, "/livez", Endpoint::Live),
    read(LanPort::Front, "/readyz", Endpoint::Ready),
    read(LanPort::Front, "/status.json", Endpoint::Status),
    read(LanPort::Front, "/openapi.json", Endpoint::OpenApi),
    read(LanPort::Front, "/.well-known/comptoir", Endpoint::WellKnown),
    read(
        LanPort::Catalogue,
        "/v1/documents/{collection}/{id}",
        Endpoint::Document,
    ),
    read(LanPort::Catalogue, "/v1/barcodes/{code}", Endpoint::Barcode),
    read(
        LanPort::Catalogue,
        "/v1/documents/{collection}",
        Endpoint::Documents,
    ),
    read(LanPort::Catalogue, "/v1/changes", Endpoint::Changes),
    send(LanPort::Orders, "/v1/orders", Endpoint::SubmitOrder),
    read(LanPort::Orders, "/v1/orders", Endpoint::Orders),
    read(LanPort::Orders, "/v1/orders/{id}", Endpoint::Order),
    send(
        LanPort::Orders,
        "/v1/orders/{id}/advance",
        Endpoint::AdvanceOrder,
    ),
    read(LanPort::Events, "/v1/events", Endpoint::Events),
    read(LanPort::Media, "/v1/media/{sha256}", Endpoint::Media),
    send(LanPort::Care, "/v1/heartbeat", Endpoint::Heartbeat),
    send(LanPort::Care, "/v1/receipts", Endpoint::Receipt),
    send(LanPort::Care, "/v1/pair", Endpoint::Pair),
    read(LanPort::Support, "/metrics", Endpoint::Metrics),
    read(LanPort::Support, "/v1/checks", Endpoint::Checks),
    read(LanPort::Support, "/v1/sent", Endpoint::Sent),
];

/// Parameters a pattern may have.
const MAX_PARAMETERS: usize = 2;

/// The values of a pattern's parameters, decoded, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parameters<'p>([Cow<'p, str>; MAX_PARAMETERS]);

impl Parameters<'_> {
    /// The first parameter.
    #[must_use]
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// The second parameter.
    #[must_use]
    pub fn second(&self) -> &str {
        &self.0[1]
    }
}

/// Finds what answers `method` and `path` on `port`; `number_of` says under which number a port is reached.
///
/// # Errors
/// 404, 405 with `Allow`, or 421 that names the path's own port.
pub fn find<'p>(
    port: LanPort,
    method: &Method,
    path: &'p str,
    number_of: impl Fn(LanPort) -> u16,
) -> Result<(&'static Route, Parameters<'p>), Box<Problem>> {
    let verb = match *method {
        Method::GET | Method::HEAD => Some(Verb::Read),
        Method::POST => Some(Verb::Send),
        _ => None,
    };
    let mut allowed = Vec::new();
    for route in ROUTES.iter().filter(|route| route.port == port) {
        let Some(segments) = matched(route.pattern, path) else {
            continue;
        };
        if Some(route.verb) == verb {
            return Ok((route, decoded(segments)?));
        }
        allowed.push(match route.verb {
            Verb::Read => "GET, HEAD",
            Verb::Send => "POST",
        });
    }
    if !allowed.is_empty() {
        let allow = allowed.join(", ");
        let problem = Problem::new(
            Kind::MethodNotAllowed,
            format!("{path} takes {allow}, not {method}"),
        );
        let allow = HeaderValue::try_from(allow).expect("method names are header text");
        return Err(problem.header(header::ALLOW, allow));
    }
    let elsewhere = ROUTES
        .iter()
        .find(|route| matched(route.pattern, path).is_some());
    Err(match elsewhere {
        Some(route) => {
            let number = number_of(route.port);
            Problem::new(
                Kind::WrongPort,
                format!(
                    "{path} belongs to port {number} ({}); this is port {} ({})",
                    route.port.name(),
                    number_of(port),
                    port.name()
                ),
            )
            .with("port", number)
        }
        None => Problem::new(Kind::NotFound, format!("the box has no path {path}")),
    })
}

/// The segments that stand for the pattern's parameters, when the path has the pattern's shape.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<[&'p str; MAX_PARAMETERS]> {
    let mut values = [""; MAX_PARAMETERS];
    let mut slots = values.iter_mut();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            *slots.next()? = segment;
        } else if segment != expected {
            return None;
        }
    }
    segments.next().is_none().then_some(values)
}

fn decoded(segments: [&str; MAX_PARAMETERS]) -> Result<Parameters<'_>, Box<Problem>> {
    let mut parameters = Parameters::default();
    for (slot, segment) in parameters.0.iter_mut().zip(segments) {
        *slot = decode(segment).ok_or_else(|| bad("the path has a broken percent escape"))?;
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(port: LanPort, method: Method, path: &str) -> Result<(Endpoint, String), Kind> {
        find(port, &method, path, LanPort::number)
            .map(|(route, found)| {
                (
                    route.endpoint,
                    format!("{}|{}", found.first(), found.second()),
                )
            })
            .map_err(|problem| problem.kind)
    }

    #[test]
    fn a_path_answers_on_its_port_and_names_it_elsewhere() {
        for route in ROUTES {
            let path = route
                .pattern
                .split('/')
                .map(|segment| {
                    if segment.starts_with('{') {
                        "x"
                    } else {
                        segment
                    }
                })
                .collect::<Vec<_>>()
                .join("/");
            let method = match route.verb {
                Verb::Read => Method::GET,
                Verb::Send => Method::POST,
            };
            for port in LanPort::ALL {
                let answer = ask(port, method.clone(), &path).map(|(endpoint, _)| endpoint);
                if port == route.port {
                    assert_eq!(answer, Ok(route.endpoint), "{path}");
                } else {
                    assert_eq!(answer, Err(Kind::WrongPort), "{path} on {}", port.name());
                }
            }
        }
    }

    #[test]
    fn parameters_are_decoded_and_never_span_a_slash() {
        let path = "/v1/documents/products/a%2F..%2Fb";
        assert_eq!(
            ask(LanPort::Catalogue, Method::HEAD, path),
            Ok((Endpoint::Document, "products|a/../b".into()))
        );
        for path in [
            "/v1/documents/products/a/b",
            "/v1/documents/products/",
            "/v1/documents//x",
            "//v1/changes",
            "/v1/changes/",
            "",
        ] {
            assert_eq!(
                ask(LanPort::Catalogue, Method::GET, path),
                Err(Kind::NotFound),
                "{path:?}"
            );
        }
        assert_eq!(
            ask(LanPort::Catalogue, Method::GET, "/v1/barcodes/%ff"),
            Err(Kind::BadRequest)
        );
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        assert_eq!(
            ask(LanPort::Orders, Method::DELETE, "/v1/orders"),
            Err(Kind::MethodNotAllowed)
        );
        let problem =
            find(LanPort::Orders, &Method::PUT, "/v1/orders", LanPort::number).unwrap_err();
        let answer = problem.into_answer("/v1/orders");
        assert_eq!(answer.headers()["allow"], "POST, GET, HEAD");
    }
}
