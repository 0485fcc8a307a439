//! Sending: one message, or a batch.

use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::properties::{custom_of_batch, custom_of_headers, read_broker};
use super::reply::error;
use crate::platform::{Platform, now_ms};
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, empty};
use crate::store::StoreError;
use crate::store::entities::Entity;
use crate::store::messages::{self, NewMessage};

/// Largest message or batch with its properties (Standard tier).
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Largest sum of properties.
const MAX_PROPERTIES_BYTES: usize = 64 * 1024;

const BATCH: &str = "application/vnd.microsoft.servicebus.json";

pub async fn answer(
    request: Request<Payload>,
    entity: Entity,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let (head, body) = request.into_parts();
    let too_large = || {
        error(
            StatusCode::FORBIDDEN,
            "The message or its properties are too large.",
        )
    };
    let Some(body) = body.filter(|body| body.len() <= MAX_MESSAGE_BYTES) else {
        return Ok(too_large());
    };
    let messages = match read_messages(&head.headers, &body, now_ms()) {
        Ok(messages) => messages,
        Err(detail) => return Ok(error(StatusCode::BAD_REQUEST, &detail)),
    };
    for message in &messages {
        let properties = message.broker.len() + message.custom.len();
        if properties > MAX_PROPERTIES_BYTES || properties + body.len() > MAX_MESSAGE_BYTES {
            return Ok(too_large());
        }
    }
    store(platform, entity, messages).await?;
    Ok(empty(StatusCode::CREATED))
}

/// Stores messages in one transaction and wakes who waits for them; the last one's sequence number, or `None`
/// if it was a duplicate.
pub async fn store(
    platform: &Arc<Platform>,
    entity: Entity,
    messages: Vec<NewMessage>,
) -> Result<Option<i64>, StoreError> {
    let seq = platform
        .store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            let mut seq = None;
            for message in &messages {
                seq = messages::send(&transaction, &entity, message, now_ms())?;
            }
            transaction.commit()?;
            Ok(seq)
        })
        .await?;
    platform.messages_changed.send_replace(());
    Ok(seq)
}

/// The messages of a request: one, or those of a batch.
pub fn read_messages(
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<Vec<NewMessage>, String> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|text| text.to_lowercase().starts_with(BATCH)) {
        return read_batch(body, now_ms);
    }
    let broker = match headers.get("brokerproperties") {
        Some(header) => serde_json::from_slice::<Map<String, Value>>(header.as_bytes())
            .map_err(|error| format!("BrokerProperties is no JSON object: {error}"))?,
        None => Map::new(),
    };
    let mut message = NewMessage {
        content_type: content_type
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        body: body.to_vec(),
        custom: custom_text(&custom_of_headers(headers)),
        ..NewMessage::default()
    };
    read_broker(&broker, &mut message, now_ms)?;
    Ok(vec![message])
}

fn read_batch(body: &[u8], now_ms: i64) -> Result<Vec<NewMessage>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Element {
        body: String,
        #[serde(default)]
        broker_properties: Map<String, Value>,
        #[serde(default)]
        user_properties: Map<String, Value>,
    }
    let elements: Vec<Element> =
        serde_json::from_slice(body).map_err(|error| format!("The batch is malformed: {error}"))?;
    let read = |element: Element| {
        let custom = custom_text(&custom_of_batch(&element.user_properties));
        let mut message = NewMessage {
            body: element.body.into_bytes(),
            custom,
            ..NewMessage::default()
        };
        read_broker(&element.broker_properties, &mut message, now_ms)?;
        Ok(message)
    };
    elements.into_iter().map(read).collect()
}

fn custom_text(custom: &[(String, String)]) -> String {
    serde_json::to_string(custom).expect("pairs of strings are JSON")
}
