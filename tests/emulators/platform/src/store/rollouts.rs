//! Roll-outs: hawkBit's actions of this site's boxes, what boxes said of them, and the boxes as hawkBit's targets.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::StoreError;

/// How an action stands, in hawkBit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The box has still to say yes.
    WaitForConfirmation,
    /// Under way.
    Running,
    /// A download-only action whose artifacts are there.
    Downloaded,
    /// The box is asked to let go.
    Canceling,
    /// It did.
    Canceled,
    /// Closed with success.
    Finished,
    /// Closed with a failure.
    Error,
}

impl Status {
    /// Whether the box still has something to do with it.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::WaitForConfirmation | Self::Running | Self::Canceling
        )
    }
}

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// At once.
    Forced,
    /// When it suits the box.
    Soft,
    /// The box fetches it and waits for another action.
    DownloadOnly,
}

/// A file and what is announced of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub filename: String,
    /// Announced.
    pub size: u64,
    /// Announced.
    pub sha1: String,
    /// Announced.
    pub md5: String,
    /// Announced.
    pub sha256: String,
    /// What is really served, by SHA-256; another one than announced when a test has exchanged it.
    pub served: String,
    /// ETag of what is served: its SHA-1, without quotes, as hawkBit sends it.
    pub served_sha1: String,
    /// Size of what is served.
    pub served_size: u64,
}

/// One action.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number, given by the store.
    #[serde(default)]
    pub id: i64,
    /// The box; `None` until the first one asks.
    pub controller: Option<String>,
    /// Version of the one software module.
    pub version: String,
    /// The bundle.
    pub artifact: Artifact,
    /// How urgent.
    pub urgency: Urgency,
    /// With a maintenance schedule: whether it is open.
    pub window_open: Option<bool>,
    /// Link given instead of the platform's own.
    pub link: Option<String>,
    /// Where the download leads instead of to the bytes.
    pub redirect: Option<String>,
    /// How it stands.
    pub status: Status,
}

/// A box as hawkBit knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Controller {
    /// Its controller id.
    pub id: String,
    /// What it told of itself.
    pub attributes: Map<String, Value>,
    /// Whether it is asked to tell.
    pub is_asked: bool,
    /// When it last asked, Unix milliseconds.
    pub last_poll_ms: i64,
}

/// What a box said of an action.
#[derive(Debug, Serialize)]
pub struct Feedback {
    /// When it came, Unix milliseconds.
    pub at_ms: i64,
    /// `deploymentBase`, `cancelAction` or `confirmationBase`; `retrieved` and `download` are the platform's own notes.
    pub about: String,
    /// Its body.
    pub body: Box<RawValue>,
}

/// Keeps a new action and returns its number.
pub fn insert(connection: &Connection, rollout: &Rollout) -> Result<i64, StoreError> {
    connection.execute("INSERT INTO rollouts(body) VALUES (?1)", [text_of(rollout)])?;
    Ok(connection.last_insert_rowid())
}

/// Replaces an action.
pub fn update(connection: &Connection, rollout: &Rollout) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE rollouts SET body = ?2 WHERE id = ?1",
        params![rollout.id, text_of(rollout)],
    )?;
    Ok(())
}

/// All actions, oldest first.
pub fn list(connection: &Connection) -> Result<Vec<Rollout>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id, body FROM rollouts ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        let mut rollout: Rollout = value_of(&row.get::<_, String>(1)?);
        rollout.id = row.get(0)?;
        Ok(rollout)
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The action of this number.
pub fn find(connection: &Connection, id: i64) -> Result<Option<Rollout>, StoreError> {
    Ok(list(connection)?
        .into_iter()
        .find(|rollout| rollout.id == id))
}

/// Notes what a box said, or what the platform itself saw.
pub fn note(
    connection: &Connection,
    rollout: i64,
    about: &str,
    body: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO rollout_feedback(rollout, at_ms, about, body) VALUES (?1, ?2, ?3, ?4)",
        params![rollout, now_ms, about, body],
    )?;
    Ok(())
}

/// What was said of an action, oldest first.
pub fn feedback(connection: &Connection, rollout: i64) -> Result<Vec<Feedback>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT at_ms, about, body FROM rollout_feedback WHERE rollout = ?1 ORDER BY number",
    )?;
    let rows = statement.query_map([rollout], |row| {
        Ok(Feedback {
            at_ms: row.get(0)?,
            about: row.get(1)?,
            body: RawValue::from_string(row.get(2)?).expect("only JSON was stored"),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The box of this id.
pub fn controller(connection: &Connection, id: &str) -> Result<Option<Controller>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT body FROM controllers WHERE id = ?1")?
        .query_row([id], |row| Ok(value_of(&row.get::<_, String>(0)?)))
        .optional()?)
}

/// Keeps a box.
pub fn put_controller(connection: &Connection, controller: &Controller) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR REPLACE INTO controllers(id, body) VALUES (?1, ?2)",
        params![controller.id, text_of(controller)],
    )?;
    Ok(())
}

/// All boxes.
pub fn controllers(connection: &Connection) -> Result<Vec<Controller>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT body FROM controllers ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok(value_of(&row.get::<_, String>(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn text_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the emulator's own types are JSON")
}

fn value_of<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("only the emulator writes its store")
}
