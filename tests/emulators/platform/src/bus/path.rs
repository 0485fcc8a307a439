//! Paths of the runtime API, in whatever case a client writes them.

use crate::percent;

const DEAD_LETTER: &str = "$deadletterqueue";

/// What a path points at.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the entity, in lower case.
    pub entity: String,
    /// Its dead-letter queue is meant.
    pub dead: bool,
    /// The entity's path as it was written, for the Location of an answer.
    pub written: String,
    /// What is to be done there; the method says the rest.
    pub operation: Operation,
}

/// The part after the entity.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    /// `/messages`
    Send,
    /// `/messages/head`
    Head,
    /// `/messages/{MessageId or SequenceNumber}/{LockToken}`
    Settle(String, String),
}

impl Target {
    /// Reads a request's path; `None` if it is none of this API's.
    pub fn parse(path: &str) -> Option<Self> {
        let raw: Vec<&str> = path.trim_matches('/').split('/').collect();
        let at = raw
            .iter()
            .position(|segment| segment.eq_ignore_ascii_case("messages"))
            .filter(|at| *at > 0)?;
        let (entity, rest) = (&raw[..at], &raw[at + 1..]);
        let operation = match rest {
            [] => Operation::Send,
            [head] if head.eq_ignore_ascii_case("head") => Operation::Head,
            [id, lock] => Operation::Settle(percent::decode(id), percent::decode(lock)),
            _ => return None,
        };
        let mut names: Vec<String> = entity
            .iter()
            .map(|name| percent::decode(name).to_lowercase())
            .collect();
        let dead = names.last().is_some_and(|name| name == DEAD_LETTER);
        if dead {
            names.pop();
        }
        // Event Hubs: a publisher or partition belongs to its hub, which is a queue here.
        if operation == Operation::Send
            && names.len() == 3
            && (names[1] == "publishers" || names[1] == "partitions")
        {
            names.truncate(1);
        }
        Some(Self {
            entity: names.join("/"),
            dead,
            written: entity.join("/"),
            operation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(String, bool, Operation)> {
        Target::parse(path).map(|target| (target.entity, target.dead, target.operation))
    }

    #[test]
    fn paths_are_read_in_any_case() {
        assert_eq!(
            parse("/Q1/Messages/Head"),
            Some(("q1".into(), false, Operation::Head))
        );
        assert_eq!(
            parse("/q1/messages"),
            Some(("q1".into(), false, Operation::Send))
        );
        assert_eq!(
            parse("/t/Subscriptions/s/$DeadLetterQueue/messages/7/ab%2Dc"),
            Some((
                "t/subscriptions/s".into(),
                true,
                Operation::Settle("7".into(), "ab-c".into())
            ))
        );
        assert_eq!(
            parse("/hub/publishers/box1/messages"),
            Some(("hub".into(), false, Operation::Send))
        );
    }

    #[test]
    fn other_paths_are_nothing() {
        for path in [
            "/",
            "/q1",
            "/messages/head",
            "/q1/messages/a/b/c",
            "/q1/messages/tail",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
