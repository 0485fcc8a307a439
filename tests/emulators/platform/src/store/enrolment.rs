//! Boxes that showed themselves, who was claimed for which site, and the tokens they were handed.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::StoreError;

/// How a box stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It shows itself and nobody has claimed it.
    Waiting,
    /// It belongs to a site.
    Claimed,
    /// It did.
    Revoked,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Claimed => "claimed",
            Self::Revoked => "revoked",
        }
    }
}

/// A box.
#[derive(Debug, Clone)]
pub struct Box {
    pub box_id: String,
    pub public_key: Vec<u8>,
    pub version: String,
    pub claim: Vec<u8>,
    pub state: State,
    pub site: String,
    pub claimed_ms: i64,
    /// The last signed text and its signature, for a foreign eye.
    pub signed_text: String,
    pub signature: Vec<u8>,
    /// Tokens it was handed so far.
    pub handed_out: i64,
}

/// What a box said of itself.
pub struct Presented {
    pub box_id: String,
    pub public_key: Vec<u8>,
    pub version: String,
    pub claim: Vec<u8>,
    pub signed_text: String,
    pub signature: Vec<u8>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Introduced {
    Known,
    OtherKey,
}

/// Notes the box; a known one must have the key it had.
pub fn introduce(
    connection: &Connection,
    box_: &Presented,
    now_ms: i64,
) -> Result<Introduced, StoreError> {
    let known = find(connection, &box_.box_id)?;
    if known.is_some_and(|known| known.public_key != box_.public_key) {
        return Ok(Introduced::OtherKey);
    }
    connection.execute(
        "INSERT INTO boxes(box_id, public_key, version, claim, state, site, claimed_ms, seen_ms, signed_text, signature)
         VALUES (?1, ?2, ?3, ?4, 'waiting', '', 0, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET version = excluded.version, claim = excluded.claim, seen_ms = excluded.seen_ms,
             signed_text = excluded.signed_text, signature = excluded.signature",
        params![
            box_.box_id,
            box_.public_key,
            box_.version,
            box_.claim,
            now_ms,
            box_.signed_text,
            box_.signature
        ],
    )?;
    Ok(Introduced::Known)
}

/// One box.
pub fn find(connection: &Connection, box_id: &str) -> Result<Option<Box>, StoreError> {
    Ok(connection
        .query_row(&format!("{SELECT} WHERE box_id = ?1"), [box_id], read)
        .optional()?)
}

/// All of them.
pub fn list(connection: &Connection) -> Result<Vec<Box>, StoreError> {
    let mut statement = connection.prepare(&format!("{SELECT} ORDER BY box_id"))?;
    let boxes = statement.query_map([], read)?;
    Ok(boxes.collect::<rusqlite::Result<_>>()?)
}

/// Sets the state and site; tokens of a box that is revoked, or claimed anew, are void.
pub fn set_state(
    connection: &Connection,
    box_id: &str,
    state: State,
    site: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    void_tokens(connection, box_id)?;
    let changed = connection.execute(
        "UPDATE boxes SET state = ?2, site = ?3, claimed_ms = ?4 WHERE box_id = ?1",
        params![box_id, state.name(), site, now_ms],
    )?;
    Ok(changed > 0)
}

/// Makes every token of the box void.
pub fn void_tokens(connection: &Connection, box_id: &str) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE tokens SET expires_ms = 0 WHERE box_id = ?1",
        [box_id],
    )?;
    Ok(())
}

/// A token to hand out.
pub struct Token {
    pub token: String,
    pub box_id: String,
    pub expires_ms: i64,
    /// The one before stays good for a while: the box has not stored this one yet.
    pub renews: bool,
}

/// Notes it. What was handed out before goes on until its own end.
pub fn issue(connection: &Connection, token: &Token) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO tokens(token, box_id, expires_ms, renews) VALUES (?1, ?2, ?3, ?4)",
        params![token.token, token.box_id, token.expires_ms, token.renews],
    )?;
    Ok(())
}

/// Whether the token is of a box claimed for `site`, and not over.
pub fn is_token_good(
    connection: &Connection,
    token: &str,
    site: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached(
            "SELECT 1 FROM tokens JOIN boxes USING (box_id)
             WHERE token = ?1 AND expires_ms > ?3 AND state = 'claimed' AND site = ?2",
        )?
        .query_row(params![token, site, now_ms], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

const SELECT: &str =
    "SELECT box_id, public_key, version, claim, state, site, claimed_ms, signed_text, signature,
    (SELECT count(*) FROM tokens WHERE tokens.box_id = boxes.box_id) FROM boxes";

fn read(row: &Row<'_>) -> rusqlite::Result<Box> {
    Ok(Box {
        box_id: row.get(0)?,
        public_key: row.get(1)?,
        version: row.get(2)?,
        claim: row.get(3)?,
        state: match row.get::<_, String>(4)?.as_str() {
            "claimed" => State::Claimed,
            "revoked" => State::Revoked,
            _ => State::Waiting,
        },
        site: row.get(5)?,
        claimed_ms: row.get(6)?,
        signed_text: row.get(7)?,
        signature: row.get(8)?,
        handed_out: row.get(9)?,
    })
}
