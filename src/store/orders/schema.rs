//! Tables of `orders.db`. From the first release on, migrations are appended, never edited (rules: [`crate::store::db`]).
//!
//! Flash is what wears out: each page a commit touches is 4 KiB written, and again at the checkpoint. So keys rise with
//! time (a group commit then touches the same last pages), an order's command has the order's key and needs no index of
//! its own for it, and the only indexes without an order in time are those that find what may come twice.

/// What may wait for the platform in each lane but telemetry. Above it only what is older than [`KEPT_MS`] is dropped.
pub const OUTBOX_BOUND: i64 = 1_000_000;
/// Telemetry that may wait; above it the oldest is dropped and counted.
pub const TELEMETRY_BOUND: i64 = 20_000;
/// How long idempotency keys, message ids and closed orders are remembered.
pub const KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO facts VALUES ('key_prefix', lower(hex(randomblob(8)))), ('command_prefix', randomblob(8));

    CREATE TABLE orders (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        order_id TEXT NOT NULL UNIQUE,
        seq INTEGER NOT NULL,
        source INTEGER NOT NULL,
        device_id TEXT,
        state INTEGER NOT NULL,
        role TEXT NOT NULL,
        placed_ms INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        request_key BLOB,
        request_digest BLOB,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX orders_seq ON orders (seq);
    CREATE UNIQUE INDEX orders_request ON orders (request_key) WHERE request_key IS NOT NULL;
    CREATE INDEX orders_open ON orders (state, seq) WHERE state IN (0, 1, 2, 3);

    CREATE TABLE inbox (
        message_id TEXT PRIMARY KEY,
        source INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        order_id TEXT,
        parked TEXT,
        why TEXT,
        body BLOB,
        document BLOB,
        tries INTEGER NOT NULL DEFAULT 0,
        due_ms INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX inbox_received ON inbox (received_ms);
    CREATE INDEX inbox_parked ON inbox (received_ms) WHERE parked IS NOT NULL;

    CREATE TABLE commands (
        key INTEGER PRIMARY KEY REFERENCES orders (key),
        role TEXT NOT NULL,
        device_id TEXT,
        device_seq INTEGER,
        state INTEGER NOT NULL DEFAULT 0,
        sends INTEGER NOT NULL DEFAULT 0,
        issued_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        detail TEXT
    );
    CREATE INDEX commands_open ON commands (role, key) WHERE state = 0;
    CREATE INDEX commands_held ON commands (device_id, device_seq) WHERE state IN (1, 2, 3);

    CREATE TABLE device_seqs (device_id TEXT PRIMARY KEY, last_seq INTEGER NOT NULL) WITHOUT ROWID;

    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lane INTEGER NOT NULL,
        kind TEXT NOT NULL,
        occurred_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        subject TEXT,
        body BLOB NOT NULL
    );
    CREATE INDEX outbox_lane ON outbox (lane, parked, id);
    CREATE INDEX outbox_failed ON outbox (lane, subject, id) WHERE due_ms > 0 AND parked = 0 AND subject IS NOT NULL;

    CREATE TABLE idempotency (
        device_id TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        reference TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (device_id, key)
    ) WITHOUT ROWID;
    CREATE INDEX idempotency_at ON idempotency (at_ms);
"];
