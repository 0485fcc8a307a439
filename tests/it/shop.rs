//! The part of a box that commands pass through, for tests: the real store and the real dispatch.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::SystemClock;
use comptoir::config::{DevicesConfig, StoreConfig};
use comptoir::devices::{Dispatch, DispatchHandle, DispatchParts, RELEASE_AFTER};
use comptoir::identity::BoxIdentity;
use comptoir::shutdown::Shutdown;
use comptoir::store::devices::{NewDevice, Paired};
use comptoir::store::orders::{InboxMessage, Lane, OrderState, Received, Source};
use comptoir::store::{OrderRules, Store};
use comptoir::telemetry::Telemetry;
use comptoir::units::ByteSize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::kitchen::{Kitchen, wait_for};

/// Store and dispatch, running.
pub struct Shop {
    pub store: Store,
    pub dispatch: DispatchHandle,
    pub telemetry: Telemetry,
    shutdown: Shutdown,
    runtime: Option<Runtime>,
}

/// Whose box this is.
pub fn identity() -> BoxIdentity {
    BoxIdentity::from_seed([42; 32])
}

impl Shop {
    /// With an hour for every command.
    pub fn open(dir: &Path) -> Self {
        Self::open_with(dir, Duration::from_secs(3600))
    }

    /// With another time for every command.
    pub fn open_with(dir: &Path, command_ttl: Duration) -> Self {
        Self::open_releasing(dir, command_ttl, RELEASE_AFTER)
    }

    /// With another patience for lost devices.
    pub fn open_releasing(dir: &Path, command_ttl: Duration, release_after: Duration) -> Self {
        Self::dispatching(dir, command_ttl, |dispatch| {
            dispatch.releasing_after(release_after)
        })
    }

    /// Where a lost device is told at once.
    pub fn open_telling(dir: &Path) -> Self {
        Self::dispatching(dir, Duration::from_secs(3600), |dispatch| {
            dispatch.telling_after(Duration::ZERO)
        })
    }

    fn dispatching(
        dir: &Path,
        command_ttl: Duration,
        patience: impl FnOnce(Dispatch) -> Dispatch,
    ) -> Self {
        let config = StoreConfig {
            data_dir: dir.join("data"),
            catalogue_cache: ByteSize::mib(1),
            blob_quota: ByteSize::mib(1),
            orders_reserve: ByteSize::bytes(0),
        };
        let rules = OrderRules {
            default_role: "kitchen".into(),
            command_ttl,
        };
        let clock = Arc::new(SystemClock::default());
        let store = Store::open_with(&config, rules, clock.clone()).unwrap();
        let telemetry = Telemetry::default();
        let (dispatch, handle) = Dispatch::new(DispatchParts {
            store: store.clone(),
            identity: Arc::new(identity()),
            config: DevicesConfig {
                command_port: 8081,
                order_role: "kitchen".into(),
                command_ttl,
                accept_timeout: Duration::from_secs(10),
                done_timeout: (command_ttl / 10).min(Duration::from_secs(120)),
                max_devices: 10,
            },
            clock,
            telemetry: telemetry.clone(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = Shutdown::default();
        runtime.spawn(patience(dispatch).run(shutdown.clone()));
        Self {
            store,
            dispatch: handle,
            telemetry,
            shutdown,
            runtime: Some(runtime),
        }
    }

    /// Pairs a device nobody knows the address of.
    pub fn pair(&self, role: &str) -> Paired {
        let device = NewDevice {
            name: "Écran cuisine".into(),
            role: role.into(),
            address: None,
        };
        self.store.devices.pair(device).wait().unwrap()
    }

    /// A paired and running kitchen that the box knows the address of.
    pub fn kitchen(&self, dir: &Path) -> (Kitchen, Paired) {
        self.another_kitchen(dir, "kitchen")
    }

    /// A second one, with a folder of its own.
    pub fn another_kitchen(&self, dir: &Path, name: &str) -> (Kitchen, Paired) {
        let paired = self.pair("kitchen");
        let mut kitchen = Kitchen::paired(
            &dir.join(name),
            &paired,
            identity().id(),
            &identity().public_key(),
        );
        self.meet(&mut kitchen, &paired);
        (kitchen, paired)
    }

    /// Starts the device and tells the box where it is.
    pub fn meet(&self, kitchen: &mut Kitchen, paired: &Paired) {
        let address = kitchen.start();
        let known = self
            .store
            .devices
            .set_address(&paired.device_id, address.ip(), Some(address.port()))
            .wait()
            .unwrap();
        assert!(known);
    }

    /// An order from the bus.
    pub fn order(&self, order_id: &str) {
        self.order_with(order_id, &json!([{"product": "p1"}]));
    }

    /// An order from the bus with these lines.
    pub fn order_with(&self, order_id: &str, lines: &Value) {
        let body =
            json!({"order_id": order_id, "placed_at": "2026-11-24T20:00:00Z", "lines": lines});
        let message = InboxMessage {
            message_id: format!("m-{order_id}"),
            source: Source::Bus,
            body: body.to_string().into_bytes(),
        };
        let received = self.store.orders.receive(message).wait().unwrap();
        assert_eq!(
            received,
            Received::New {
                order_id: order_id.into()
            }
        );
    }

    /// Waits until an order is there.
    pub fn wait_state(&self, order_id: &str, state: OrderState) {
        wait_for(&format!("{order_id} to be {state:?}"), || {
            let order = self.store.orders.order(order_id).unwrap().unwrap();
            (order.state == state).then_some(())
        });
    }

    /// What the platform will be told of commands: order and outcome, one each.
    pub fn told(&self) -> Vec<(String, String)> {
        self.store
            .orders
            .outbox_due(Lane::Orders, i64::MAX, 1000)
            .unwrap()
            .into_iter()
            .filter(|item| item.kind == "command.done")
            .map(|item| {
                let body: Value = serde_json::from_str(item.body.get()).unwrap();
                (text(&body["order_id"]), text(&body["outcome"]))
            })
            .collect()
    }

    /// Waits until the platform will be told of so many.
    pub fn wait_told(&self, count: usize) -> Vec<(String, String)> {
        wait_for(&format!("{count} results in the outbox"), || {
            let told = self.told();
            (told.len() >= count).then_some(told)
        })
    }

    /// Ends as at a planned stop.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shutdown.trigger();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(30));
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// These orders, carried out.
pub fn ok(order_ids: &[&str]) -> Vec<(String, String)> {
    order_ids
        .iter()
        .map(|id| ((*id).to_owned(), "ok".to_owned()))
        .collect()
}
