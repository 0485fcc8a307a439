//! Tables of `catalogue.db`. From the first release on, migrations are appended, never edited (rules: [`crate::store::db`]).

/// Collection whose documents are found by barcode.
pub const BARCODE_COLLECTION: &str = "products";
/// Collection whose documents name media files.
pub const MEDIA_COLLECTION: &str = "media";
/// Collections whose documents may carry `prices` with dates.
pub const PRICED_COLLECTIONS: [&str; 2] = ["products", "prices"];
/// How long a deletion is remembered for readers of the feed that were away.
pub const TOMBSTONES_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;
/// Deletions remembered at most; above it the oldest go first, and late readers refetch.
pub const TOMBSTONE_BOUND: i64 = 200_000;

// `seq` numbers changes for the local feed. `seen` holds the documents a running snapshot found unchanged; what it
// wrote has a `seq` above its start, so together they are all it held; but for `switched`: what the box's own clock gave
// a `seq` meanwhile (that one), and no snapshot held so far. `documents.price` is the entry of `prices` that
// holds now, `dated` when it is to be looked at again (NULL: no date lies ahead).
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO facts VALUES
        ('generation', lower(hex(randomblob(6)))), ('seq', 0), ('run', 0),
        ('horizon_seq', 0), ('horizon_ms', 0), ('priced_ms', 0);

    CREATE TABLE documents (
        doc INTEGER PRIMARY KEY,
        collection TEXT NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        body BLOB,
        price BLOB,
        UNIQUE (collection, id)
    );
    CREATE UNIQUE INDEX documents_seq ON documents (seq);
    CREATE INDEX tombstones ON documents (seq) WHERE body IS NULL;

    CREATE TABLE barcodes (
        code TEXT NOT NULL,
        doc INTEGER NOT NULL,
        PRIMARY KEY (code, doc)
    ) WITHOUT ROWID;

    CREATE TABLE collections (name TEXT PRIMARY KEY, live INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE seen (doc INTEGER PRIMARY KEY);
    CREATE TABLE switched (doc INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
    CREATE TABLE dated (doc INTEGER PRIMARY KEY, next_ms INTEGER);
    CREATE INDEX dated_next ON dated (next_ms) WHERE next_ms IS NOT NULL;

    CREATE TABLE checksums (
        collection TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        live INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        PRIMARY KEY (collection, bucket)
    ) WITHOUT ROWID;

    CREATE TABLE set_aside (
        n INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        reason TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        head BLOB NOT NULL
    );
"];
