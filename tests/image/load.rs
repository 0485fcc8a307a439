//! Customers who keep asking while something goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use crate::http::{self, NoAnswer};

/// Between two questions of one customer.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of the questions.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: usize,
    /// Accepted, then broken off: the price of a kill in the middle.
    pub broken: Vec<String>,
    /// Nobody listened: never.
    pub refused: usize,
}

pub struct Load<T> {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<T>,
}

impl<T> Load<T> {
    pub fn stop(self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.join().unwrap()
    }
}

/// Asks `url` over and over, each time on a new connection.
pub fn keep_asking(url: String) -> Load<Tally> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let worker = thread::spawn(move || {
        let mut tally = Tally::default();
        while !stopped.load(Ordering::Relaxed) {
            match http::get(&url, None) {
                Ok(_) => tally.answered += 1,
                Err(NoAnswer::Refused) => tally.refused += 1,
                Err(NoAnswer::Other(why)) => tally.broken.push(why),
            }
            thread::sleep(PAUSE);
        }
        tally
    });
    Load { stop, worker }
}

/// Submits orders over and over and returns the ids of those the box acknowledged.
pub fn keep_ordering(
    url: String,
    token: String,
    acknowledged: Arc<std::sync::Mutex<Vec<String>>>,
) -> Load<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let worker = thread::spawn(move || {
        for number in 0.. {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("cut-{number}");
            let order = json!({
                "order_id": id,
                "placed_at": "2026-01-01T12:00:00Z",
                "lines": [{"product": "p1", "quantity": 1}],
            });
            if http::post(&url, Some(&token), Some(&id), &order)
                .is_ok_and(|answer| answer.status == 201)
            {
                acknowledged.lock().unwrap().push(id);
            }
        }
    });
    Load { stop, worker }
}
