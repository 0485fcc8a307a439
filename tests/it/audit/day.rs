//! A day's work in fast motion: every flow of the contract, every port, an outage at noon and a server that dies.

use serde_json::{Value, json};

use super::town::{CLAIM_CODE, SUPPORT_QUEUE, Town};
use crate::kitchen::wait_for;

/// Each with a changed price and an order.
const HOURS: u32 = 24;
/// The way out is gone from this hour on, for one hour; meanwhile the platform's feed forgets what the box has not read.
const OUTAGE: u32 = 12;
/// A version the box is to fetch, and no more than that.
const VERSION: &str = "99.0";
/// The server is killed in this hour.
const DEATH: u32 = 15;

/// A town's day.
pub struct Day<'a> {
    town: &'a mut Town,
    orders: usize,
}

impl<'a> Day<'a> {
    pub const fn of(town: &'a mut Town) -> Self {
        Self { town, orders: 0 }
    }

    /// From the first start to the evening.
    pub fn work(mut self) {
        self.town.control("POST", "documents/products", &products());
        self.town.control(
            "POST",
            &format!("rollouts?version={VERSION}&urgency=download_only"),
            &"v".repeat(300_000),
        );
        self.town.start_box();
        self.enrol();
        self.town.start_kitchen();
        let token = self.town.kitchen.as_ref().unwrap().token();
        self.wait_for_document("p9", &token);
        for hour in 0..HOURS {
            self.hour(hour, &token);
        }
        self.browse(&token);
        let report = self.town.check();
        let report: Value = serde_json::from_str(&report).expect("the check answers in JSON");
        for flow in report["flows"].as_array().unwrap() {
            assert_ne!(flow["verdict"], "failed", "{flow}");
        }
        self.all_is_told();
        self.town.end("box");
    }

    /// The box shows itself, and an operator types its code: all its credentials come from there.
    fn enrol(&self) {
        wait_for("the box shows itself", || {
            let known = self.town.control("GET", "enrol", "");
            known["boxes"].as_array()?.first().map(drop)
        });
        let code = json!({ "code": CLAIM_CODE });
        self.town.control("POST", "enrol/claim", &code.to_string());
    }

    fn hour(&mut self, hour: u32, token: &str) {
        if hour == OUTAGE {
            self.take_way_out();
        }
        let price = json!({"name": format!("Product of {hour} o'clock"), "price": {"amount": "1.20", "currency": "EUR"}});
        let id = format!("h{hour}");
        self.town.control(
            "PUT",
            &format!("documents/products/{id}"),
            &price.to_string(),
        );
        let order = json!({"order_id": format!("o-{hour}"), "lines": [{"name": "Café"}]});
        self.town.control("POST", "orders", &order.to_string());
        self.orders += 1;
        if hour.is_multiple_of(6) {
            self.town.control(
                "PUT",
                &format!("blobs/images/{id}.png?document=1"),
                &"x".repeat(20_000),
            );
        }
        if hour == DEATH {
            self.town.kill_server();
        }
        if hour == OUTAGE {
            self.told_of_outage();
            self.town.control("POST", "feed/forget", "");
            self.give_way_out_back();
            self.all_is_fetched_anew();
            // Before the server is killed: what only its memory holds goes with it.
            self.support_is_told("the outage", "wan.api_unreachable");
        }
        self.wait_for_document(&id, token);
        self.town.kitchen.as_ref().unwrap().wait_seen(self.orders);
    }

    /// The proxy goes; where there is none, the platform itself.
    fn take_way_out(&mut self) {
        if self.has_proxy() {
            self.town.end("proxy");
        } else {
            self.town.control("PUT", "offline", "{\"offline\":true}");
        }
    }

    fn give_way_out_back(&mut self) {
        if self.has_proxy() {
            self.town.start_proxy();
        } else {
            self.town.control("PUT", "offline", "{\"offline\":false}");
        }
    }

    fn has_proxy(&self) -> bool {
        self.town.path("squid.conf").exists()
    }

    /// The box has noticed, so it has tried; whatever it tries now would be seen.
    fn told_of_outage(&self) {
        wait_for("the outage is told", || {
            let (_, status) = self.town.ask_box(80, "GET", "/status.json", "", "")?;
            status.contains("wan.api_unreachable").then_some(())
        });
    }

    fn all_is_fetched_anew(&self) {
        wait_for("a second snapshot", || {
            let requests = self.town.control("GET", "requests", "");
            let begun = requests["last"].as_array()?.iter().filter(|request| {
                let path = request["path"].as_str().unwrap_or_default();
                path.ends_with("/snapshot")
            });
            (begun.count() >= 2).then_some(())
        });
    }

    fn wait_for_document(&self, id: &str, token: &str) {
        let path = format!("/v1/documents/products/{id}");
        wait_for(&format!("{id} is in the shop"), || {
            let (status, _) = self.town.ask_box(8000, "GET", &path, token, "")?;
            (status == 200).then_some(())
        });
    }

    /// A device looks at every port, the blobs too.
    fn browse(&self, token: &str) {
        for (port, path) in [
            (80, "/"),
            (80, "/.well-known/comptoir"),
            (8000, "/v1/changes"),
            (8001, "/v1/orders"),
            (8002, "/v1/events?wait_s=0"),
            (8005, "/metrics"),
        ] {
            let (status, body) = self.town.ask_box(port, "GET", path, token, "").unwrap();
            assert_eq!(status, 200, "{port} {path}: {body}");
        }
        let blob = comptoir::digest::Digest::of("x".repeat(20_000).as_bytes());
        wait_for("the media are there", || {
            let (status, _) =
                self.town
                    .ask_box(8003, "GET", &format!("/v1/media/{blob}"), token, "")?;
            (status == 200).then_some(())
        });
        let order =
            json!({"order_id": "o-counter", "placed_at": "2026-11-24T20:00:00Z", "lines": []});
        let answer = self
            .town
            .ask_box(8001, "POST", "/v1/orders", token, &order.to_string());
        assert!(answer.is_some());
    }

    /// The platform has been told of every order's end, of logs and of the death; a new version was fetched.
    fn all_is_told(&self) {
        wait_for("every order's end", || {
            let events = self
                .town
                .control("GET", "events?kind=command.done&limit=1000", "");
            (events["events"].as_array()?.len() >= self.orders).then_some(())
        });
        wait_for("the logs", || {
            let logs = self.town.control("GET", "logs", "").to_string();
            (logs.contains("orders.order_received") && logs.contains("daemon.serves")).then_some(())
        });
        self.support_is_told("the death", "supervisor.restart_told");
        wait_for("the new version is fetched", || {
            let rollouts = self.town.control("GET", "rollouts", "").to_string();
            rollouts.contains("\"downloaded\"").then_some(())
        });
    }

    fn support_is_told(&self, of: &str, what: &str) {
        wait_for(&format!("support is told of {of}"), || {
            let bodies = self
                .town
                .control("GET", &format!("bus/{SUPPORT_QUEUE}/bodies"), "");
            bodies.to_string().contains(what).then_some(())
        });
    }
}

fn products() -> String {
    (0..10)
        .map(|n| format!("{{\"id\":\"p{n}\",\"name\":\"Product {n}\"}}\n"))
        .collect()
}
