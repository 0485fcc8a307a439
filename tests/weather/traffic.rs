//! Customers: orders at the counter, orders on the internet, prices that change, new images, as long as the weather lasts.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::platform::Platform;
use crate::server::submit;

/// What each side has been told and said yes to. The oracle holds the other side to it.
#[derive(Default, Clone)]
pub struct Told {
    /// Orders the platform accepted from customers on the internet.
    pub internet: Vec<String>,
    /// Orders the box acknowledged at the counter.
    pub counter: Vec<String>,
    /// Documents as they stand at the platform; `None` is deleted.
    pub documents: BTreeMap<String, Option<Value>>,
    /// Digests of images of which the platform has told, with their bytes.
    pub images: BTreeMap<String, Vec<u8>>,
}

/// Between two rounds of customers.
const ROUND: Duration = Duration::from_millis(60);

pub struct Traffic {
    told: Arc<Mutex<Told>>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Traffic {
    /// Customers of `platform` and of the counter at `orders_url`.
    pub fn start(
        platform: Arc<Platform>,
        orders_url: String,
        token: String,
        told: Arc<Mutex<Told>>,
    ) -> Self {
        let (stop, stopped) = channel();
        let thread = thread::spawn({
            let told = Arc::clone(&told);
            move || {
                let mut waiting = None;
                let first = told.lock().unwrap().internet.len();
                for round in first.. {
                    one_round(round, &platform, &orders_url, &token, &told, &mut waiting);
                    if stopped.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
                // The last customer asks until he has an answer: an order whose answer was lost may be there or not.
                while let Some(order_id) = waiting.take() {
                    waiting = at_the_counter(order_id, &orders_url, &token, &told);
                }
            }
        });
        Self { told, stop, thread }
    }

    /// Everybody goes home; what was told.
    pub fn stop(self) -> Arc<Mutex<Told>> {
        // A thread that has ended by a panic is reported by the join.
        let _ = self.stop.send(());
        self.thread.join().unwrap();
        self.told
    }
}

fn one_round(
    round: usize,
    platform: &Platform,
    orders_url: &str,
    token: &str,
    told: &Mutex<Told>,
    waiting: &mut Option<String>,
) {
    let order_id = format!("net-{round}");
    platform.order(&order_id);
    told.lock().unwrap().internet.push(order_id);
    if round.is_multiple_of(3) || waiting.is_some() {
        let order_id = waiting.take().unwrap_or_else(|| format!("counter-{round}"));
        *waiting = at_the_counter(order_id, orders_url, token, told);
    }
    let id = format!("p{}", round % 50);
    if round % 7 == 3 {
        platform.delete_document("products", &id);
        told.lock().unwrap().documents.insert(id, None);
    } else {
        let data = json!({"name": format!("Tarte {round}"), "barcodes": [format!("{round:013}")],
            "price": {"amount": format!("{round}.50"), "currency": "EUR"}});
        platform.put_document("products", &id, &data);
        told.lock().unwrap().documents.insert(id, Some(data));
    }
    if round.is_multiple_of(20) {
        let bytes: Vec<u8> = (0..40_000_usize)
            .map(|at| u8::try_from((at * 31 + at / 251 + round * 7) % 256).unwrap())
            .collect();
        let data = platform.put_blob(&format!("image-{round}.png"), &bytes, true);
        let sha256 = data["sha256"].as_str().unwrap().to_owned();
        told.lock().unwrap().images.insert(sha256, bytes);
    }
}

/// The order's id again when no answer came.
fn at_the_counter(
    order_id: String,
    orders_url: &str,
    token: &str,
    told: &Mutex<Told>,
) -> Option<String> {
    let body = json!({"order_id": order_id, "placed_at": "2026-11-24T20:00:00Z", "lines": []});
    match submit(orders_url, token, &order_id, &body.to_string()) {
        Some(200 | 201) => {
            told.lock().unwrap().counter.push(order_id);
            None
        }
        // Full, busy, or ended in the middle: the till asks again, with the same key.
        None | Some(503) => Some(order_id),
        Some(status) => panic!("{order_id} is refused: {status}"),
    }
}
