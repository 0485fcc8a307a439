//! Tables of `orders.db`. Migrations are appended, never edited: boxes in the field hold every version.
//!
//! Rows that are written together lie together: keys rise with time, so that a group commit touches few pages.

/// The bound on what waits for the platform. Above it the oldest `events` are dropped and counted, orders and receipts
/// never.
pub const OUTBOX_BOUND: i64 = 1_000_000;
/// How long idempotency keys, message ids and closed orders are remembered.
pub const KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO facts VALUES ('key_prefix', lower(hex(randomblob(8))));

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
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX orders_seq ON orders (seq);
    CREATE INDEX orders_open ON orders (state, seq) WHERE state IN (0, 1, 2, 3);

    CREATE TABLE inbox (
        message_id TEXT PRIMARY KEY,
        source INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        order_id TEXT,
        parked TEXT,
        body BLOB
    ) WITHOUT ROWID;
    CREATE INDEX inbox_received ON inbox (received_ms);
    CREATE INDEX inbox_parked ON inbox (received_ms) WHERE parked IS NOT NULL;

    CREATE TABLE commands (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        order_id TEXT NOT NULL REFERENCES orders (order_id),
        role TEXT NOT NULL,
        device_id TEXT,
        device_seq INTEGER,
        state INTEGER NOT NULL DEFAULT 0,
        sends INTEGER NOT NULL DEFAULT 0,
        issued_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        detail TEXT
    );
    CREATE INDEX commands_order ON commands (order_id);
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
        body BLOB NOT NULL
    );
    CREATE INDEX outbox_lane ON outbox (lane, parked, id);

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
