//! Port 80: the page for people, health for watchers, and what the box is, for programs that look for it.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::{Answer, Answered, json, json_text, typed};
use super::house::House;
use super::page;
use super::problem::{Kind, Problem};
use super::request::Ask;
use super::status;
use crate::config::LanPort;
use crate::digest::hex;
use crate::identity::random_bytes;
use crate::language::Language;
use crate::version;

/// The LAN API, written by hand; a test holds it against the route table.
const OPEN_API: &str = include_str!("openapi.json");

/// A store that does not answer for this long is not ready.
const STORE_ANSWERS: Duration = Duration::from_secs(2);

/// `GET /livez`: the process answers.
pub fn live() -> Answer {
    json_text(StatusCode::OK, &b"{\"live\":true}"[..])
}

/// `GET /readyz`: the store can be read, its writer takes orders, and the disk what is written.
pub async fn ready(house: &Arc<House>) -> Answered {
    let writer = match timeout(STORE_ANSWERS, house.store.orders.tick()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", STORE_ANSWERS.as_secs())),
    };
    let catalogue = house.store.catalogue.cursor();
    let disk = house
        .store
        .disk
        .trouble()
        .map(|trouble| trouble.to_string());
    let parts = json!({
        "disk": disk.as_deref().unwrap_or("ok"),
        "orders": writer.as_ref().err().map_or("ok", String::as_str),
        "catalogue": catalogue.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string),
    });
    if disk.is_none() && writer.is_ok() && catalogue.is_ok() {
        json(StatusCode::OK, &json!({"ready": true, "parts": parts}))
    } else {
        Err(
            Problem::new(Kind::NotReady, "a part of the box does not answer")
                .with("parts", parts)
                .retry_after(2),
        )
    }
}

/// `GET /.well-known/comptoir`
pub fn well_known(house: &House) -> Answered {
    let ports: serde_json::Map<String, Value> = LanPort::ALL
        .into_iter()
        .filter(|port| house.open.contains(port))
        .map(|port| (port.name().to_owned(), house.number_of(port).into()))
        .collect();
    json(
        StatusCode::OK,
        &json!({
            "box_id": house.identity.id(),
            "box_key": hex(&house.identity.public_key()),
            "site_id": house.site_id(),
            "version": version::running(),
            "ports": ports,
            "command_port": house.devices.command_port,
            "openapi": "/openapi.json",
        }),
    )
}

/// `GET /openapi.json`
pub fn open_api() -> Answer {
    json_text(StatusCode::OK, OPEN_API.as_bytes())
}

/// `GET /status.json`; with `page=fr` or `page=en` the page's middle part comes along, for the page to renew itself.
pub async fn status(house: &Arc<House>, ask: &Ask) -> Answered {
    let status = status::status(house).await?;
    let Some(language) = ask.query("page")?.as_deref().and_then(Language::by_tag) else {
        return json(StatusCode::OK, &*status);
    };
    let mut document = serde_json::to_value(&*status)
        .map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    if let Some(object) = document.as_object_mut() {
        object.insert("page".to_owned(), page::main_part(&status, language).into());
    }
    json(StatusCode::OK, &document)
}

/// `GET /`
pub async fn page(house: &Arc<House>, ask: &Ask) -> Answered {
    let language = ask
        .query("lang")?
        .as_deref()
        .and_then(Language::by_tag)
        .unwrap_or_else(|| {
            Language::accepted(ask.header(&header::ACCEPT_LANGUAGE).unwrap_or_default())
        });
    let status = status::status(house).await?;
    let nonce = hex(&random_bytes::<16>());
    let mut answer = typed(
        StatusCode::OK,
        "text/html; charset=utf-8",
        page::whole(&status, language, &nonce),
    );
    let headers = answer.headers_mut();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy)
        .map_err(|_| Problem::new(Kind::Internal, "the policy is no header"))?;
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept-language"));
    headers.insert(
        HeaderName::from_static("content-language"),
        HeaderValue::from_static(language.tag()),
    );
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lan::route::{ROUTES, Verb};

    #[test]
    fn the_api_description_and_the_route_table_say_the_same() {
        let api: Value = serde_json::from_str(OPEN_API).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in api["paths"].as_object().unwrap() {
            let server = methods["servers"][0]["url"].as_str().unwrap();
            let port: u16 = server.rsplit(':').next().unwrap().parse().unwrap();
            for method in methods.as_object().unwrap().keys() {
                if ["get", "head", "post"].contains(&method.as_str()) {
                    described.insert((port, method.clone(), path.clone()));
                }
            }
        }
        let mut routed = BTreeSet::new();
        for route in ROUTES {
            let methods: &[&str] = match route.verb {
                Verb::Read => &["get", "head"],
                Verb::Send => &["post"],
            };
            for method in methods {
                routed.insert((
                    route.port.number(),
                    (*method).to_owned(),
                    route.pattern.to_owned(),
                ));
            }
        }
        assert_eq!(described, routed);
    }

    #[test]
    fn every_problem_type_is_described() {
        for kind in Kind::ALL {
            assert!(OPEN_API.contains(kind.urn()), "{}", kind.urn());
        }
    }
}
