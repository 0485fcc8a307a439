//! What a claimed box is handed: a token of its own, and signatures for its site's queue, container and support queue.
//! Never a namespace's key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::StatusCode;
use serde_json::json;
use sha2::Sha256;

use crate::blob::sas::of_container;
use crate::percent::encode;
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, json as json_reply};
use crate::store::StoreError;
use crate::store::enrolment::{self, Box};

/// Name of the site's container at the media host.
const CONTAINER: &str = "images";
/// The queue support events go to.
const SUPPORT_ENTITY: &str = "support";
/// Where support events go, unless the bus listens on an address of its own.
const SUPPORT_HOST: &str = "koostodesapp-ns.servicebus.windows.net";

/// Credentials, new ones with `renew` or when the box has none that are good.
pub async fn hand_out(
    platform: &Arc<Platform>,
    found: Box,
    renew: bool,
) -> Result<Reply, StoreError> {
    let (life_s, age_s) = platform.enrol.life_and_age_s();
    let issued_at_s = platform.clock.now_ms() / 1000 - age_s;
    let expires_at_s = issued_at_s + life_s;
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let site = found.site.clone();
    let issued = enrolment::Token {
        token: token.clone(),
        box_id: found.box_id.clone(),
        expires_ms: expires_at_s * 1000,
        renews: renew,
    };
    platform
        .store
        .call(move |connection| enrolment::issue(connection, &issued))
        .await?;
    let entity = format!("site-{site}");
    let bus_url = platform.addresses["bus_url"].as_str().unwrap_or_default();
    let support_url = if bus_url.contains("windows.net") {
        format!("https://{SUPPORT_HOST}")
    } else {
        bus_url.to_owned()
    };
    let bus = sas(platform, &format!("{bus_url}/{entity}"), expires_at_s);
    let support = sas(
        platform,
        &format!("{support_url}/{SUPPORT_ENTITY}"),
        expires_at_s,
    );
    Ok(json_reply(
        StatusCode::OK,
        &json!({
            "state": "claimed",
            "nonce": platform.enrol.nonces.make(now_ms()),
            "credentials": {
                "site_id": site,
                "issued_at_s": issued_at_s,
                "claimed_at_s": found.claimed_ms / 1000,
                "api": {"token": token, "expires_at_s": expires_at_s},
                "bus": {"entity": entity, "sas": bus, "expires_at_s": expires_at_s},
                "media": {"sas": of_container(CONTAINER, expires_at_s), "expires_at_s": expires_at_s},
                "support": {"entity": SUPPORT_ENTITY, "sas": support, "expires_at_s": expires_at_s},
                "logs": {"key": platform.credentials.logs_key},
            },
        }),
    ))
}

/// Whether `token` was handed out for `site` and is good now.
pub async fn is_token_good(
    platform: &Arc<Platform>,
    token: &str,
    site: &str,
) -> Result<bool, StoreError> {
    let (token, site, now_ms) = (token.to_owned(), site.to_owned(), platform.clock.now_ms());
    platform
        .store
        .call(move |connection| enrolment::is_token_good(connection, &token, &site, now_ms))
        .await
}

fn sas(platform: &Platform, uri: &str, expires_at_s: i64) -> String {
    let resource = encode(uri);
    let credentials = &platform.credentials;
    let mut mac = Hmac::<Sha256>::new_from_slice(credentials.bus_key.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{resource}\n{expires_at_s}").as_bytes());
    let signature = encode(&STANDARD.encode(mac.finalize().into_bytes()));
    let rule = encode(&credentials.bus_key_name);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires_at_s}&skn={rule}")
}
