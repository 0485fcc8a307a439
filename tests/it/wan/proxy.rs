//! Through a real squid with Basic authentication, which alone knows where the production host names are.

use std::process::Command;

use comptoir::digest::Digest;
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;
use super::squid::{API_HOST, BUS_HOST, MEDIA_HOST, PASSWORD, Squid, proxy_section, shop_behind};
use crate::loopback::free_port;

/// The shop behind a squid that takes Basic sign-in.
fn behind(platform: &Platform, squid: &Squid, password: &str) -> Shop {
    let section = proxy_section(&squid.url("http"), password);
    shop_behind(platform, &section)
}

#[test]
fn everything_goes_through_the_shops_proxy_under_the_production_names() {
    let platform = Platform::start();
    platform.load_products(200);
    platform.order("order-1");
    let squid = Squid::basic(&platform);
    let shop = behind(&platform, &squid, PASSWORD).start();
    shop.filled();
    assert_eq!(shop.documents("products"), 200);
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    let bytes = vec![7; 10_000];
    let data = platform.put_blob("a.png", &bytes, false);
    let digest = Digest::of(&bytes);
    let address = platform.text("blob_url");
    let port = address.rsplit_once(':').unwrap().1;
    let url = data["url"].as_str().unwrap();
    let url = url.replace(address, &format!("https://{MEDIA_HOST}:{port}"));
    let document = json!({"url": url, "sha256": digest.to_string(), "size": bytes.len()});
    platform.put_document("media", &digest.to_string(), &document);
    eventually("the blob comes", || {
        shop.store().blobs.contains(&digest).then_some(())
    });
    drop(shop);
    let log = eventually("squid has logged", || {
        let log = squid.log("access.log");
        [API_HOST, BUS_HOST, MEDIA_HOST]
            .iter()
            .all(|host| log.contains(&format!("CONNECT {host}:")))
            .then_some(log)
    });
    assert!(!log.contains("TCP_DENIED"), "{log}");
}

#[test]
fn a_wrong_proxy_password_is_named_and_nothing_walks_around_the_proxy() {
    let platform = Platform::start();
    let squid = Squid::basic(&platform);
    let shop = behind(&platform, &squid, "wrong").start();
    let outcome = eventually("the refusal is known", || {
        shop.outcome(Worker::Pull)
            .filter(|outcome| outcome.cause.is_some())
    });
    assert_eq!(outcome.cause, Some("proxy_407"), "{}", outcome.detail);
    let detail = eventually("it is told", || shop.condition(Code::ApiUnreachable));
    assert!(!detail.contains("wrong"), "no secret in {detail}");
    assert!(platform.requests().is_empty());
}

#[test]
fn a_host_the_proxy_forbids_is_named() {
    let platform = Platform::start();
    let squid = Squid::basic(&platform);
    let api_port = platform.text("api_url").rsplit_once(':').unwrap().1;
    let shop = behind(&platform, &squid, PASSWORD)
        .with(&format!("{API_HOST}:{api_port}"), &format!("{API_HOST}:1"))
        .start();
    let outcome = eventually("the refusal is known", || {
        shop.outcome(Worker::Pull)
            .filter(|outcome| outcome.cause.is_some())
    });
    assert_eq!(outcome.cause, Some("proxy_denied"), "{}", outcome.detail);
}

#[test]
fn a_bypassed_host_is_reached_without_the_proxy() {
    let platform = Platform::start();
    platform.load_products(3);
    let proxy = format!(
        "[wan.proxy]\nurl = \"http://127.0.0.1:{}\"\nbypass = [\"127.0.0.1\"]\n[wan.pull]\n",
        free_port()
    );
    let shop = Shop::of(&platform).with("[wan.pull]\n", &proxy).start();
    shop.filled();
    assert_eq!(shop.documents("products"), 3);
}

#[test]
fn a_flow_goes_its_own_way_past_the_shops_proxy() {
    let platform = Platform::start();
    platform.load_products(3);
    platform.order("order-1");
    let squid = Squid::basic(&platform);
    // The shop's proxy is away; the API goes directly and the bus through a proxy of its own.
    let own = proxy_section(&squid.url("http"), PASSWORD);
    let own = own.replace("[wan.proxy]", "[wan.proxy.flows.bus]");
    let section = format!(
        "[wan.proxy]\nurl = \"http://127.0.0.1:{}\"\n[wan.proxy.flows.api]\nurl = \"direct\"\n{own}",
        free_port()
    );
    let shop = Shop::of(&platform)
        .with("[wan.pull]\n", &format!("{section}[wan.pull]\n"))
        .start();
    shop.filled();
    assert_eq!(shop.documents("products"), 3);
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    // squid logs a tunnel when it ends.
    drop(shop);
    let log = eventually("squid has logged", || {
        Some(squid.log("access.log")).filter(|log| log.contains("CONNECT 127.0.0.1:"))
    });
    let port = platform.text("bus_url").rsplit_once(':').unwrap().1;
    for line in log.lines().filter(|line| line.contains("CONNECT")) {
        assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    }
}

/// Runs the named test of this binary in a process whose environment names a proxy that is not there.
#[test]
fn the_environments_proxy_is_never_asked() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
    ] {
        command.env(name, &dead);
    }
    let output = command
        .args([
            "--exact",
            "wan::pull::a_forgotten_cursor_leads_to_a_new_snapshot_that_sweeps",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}
