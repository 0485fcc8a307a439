//! Counting what is open, for people and for devices that ask what waits for them.

use serde::Serialize;

use super::{OrderState, Orders, ReadError};

/// How many orders stand in an open state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StateCount {
    /// The state.
    pub state: OrderState,
    /// Orders in it.
    pub orders: i64,
}

impl Orders {
    /// Open orders by state; closed ones are not counted.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open_orders(&self) -> Result<Vec<StateCount>, ReadError> {
        self.readers.read(|conn| {
            // The literal list lets SQLite count in the partial index of open orders.
            let mut count = conn.prepare_cached(
                "SELECT count(*) FROM orders WHERE state = ?1 AND state IN (0, 1, 2, 3)",
            )?;
            OrderState::ALL
                .into_iter()
                .filter(|state| !state.is_closed())
                .map(|state| {
                    let orders = count.query_row([state.number()], |row| row.get(0))?;
                    Ok(StateCount { state, orders })
                })
                .collect()
        })
    }

    /// Messages that were no orders and wait for somebody to look at them; their bytes stay on the disk.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parked_messages(&self) -> Result<i64, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached("SELECT count(*) FROM inbox WHERE parked IS NOT NULL")?
                .query_row([], |row| row.get(0))
        })
    }

    /// Commands `device_id` has still to carry out: those it holds, and those that are open for `role`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open_commands(&self, device_id: &str, role: &str) -> Result<i64, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT (SELECT count(*) FROM commands WHERE role = ?1 AND state = 0)
                      + (SELECT count(*) FROM commands WHERE device_id = ?2 AND state IN (1, 2, 3))",
            )?
            .query_row([role, device_id], |row| row.get(0))
        })
    }
}
