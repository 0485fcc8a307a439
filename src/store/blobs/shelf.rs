//! What the platform's manifest says of each blob, as far as keeping and serving it depends on it.

use std::cmp::Ordering;

use crate::digest::Digest;

/// What becomes valid within this time is as good as valid: it is fetched, and kept.
pub const SOON_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// One blob of the manifest, drawn from all documents that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// 0 to 9, the highest of its documents.
    pub priority: u8,
    /// Needed at once, says one of its documents.
    pub urgent: bool,
    /// Valid from (milliseconds since 1970), the first of its documents.
    pub from_ms: i64,
    /// Valid until, the last of its documents.
    pub until_ms: i64,
    /// Its media type: a place in [`Shelf::types`].
    pub kind: u16,
    /// The document that says where it is; `None` when that has the digest as its id.
    pub document: Option<Box<str>>,
    /// Stands for that document's state: another number is another address or another version.
    pub source: u64,
    /// Documents that name it.
    pub documents: u16,
}

/// Where a blob stands in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No document's time is left.
    Expired,
    /// Its time is further away than [`SOON_MS`].
    Later,
    /// Valid now or soon.
    Scheduled,
}

impl Listed {
    /// Where it stands at `now_ms`.
    #[must_use]
    pub fn phase(&self, now_ms: i64) -> Phase {
        if self.until_ms <= now_ms {
            Phase::Expired
        } else if self.from_ms > now_ms.saturating_add(SOON_MS) {
            Phase::Later
        } else {
            Phase::Scheduled
        }
    }

    /// Takes in another document's word on the same blob.
    pub fn join(&mut self, other: &Self) {
        self.priority = self.priority.max(other.priority);
        self.urgent |= other.urgent;
        self.from_ms = self.from_ms.min(other.from_ms);
        self.until_ms = self.until_ms.max(other.until_ms);
        self.documents = self.documents.saturating_add(1);
    }
}

/// How much a blob is worth its place; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// No document names it, and all documents are known.
    Unlisted,
    Expired,
    Later(u8),
    Scheduled(u8),
}

/// The manifest, by digest.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    items: Vec<Listed>,
    types: Vec<String>,
    /// All documents are known, not only those that came so far.
    whole: bool,
}

impl Shelf {
    /// A shelf of `items`, each digest once; all there are.
    #[must_use]
    pub fn new(mut items: Vec<Listed>, types: Vec<String>) -> Self {
        items.sort_unstable_by_key(|item| item.digest);
        Self {
            items,
            types,
            whole: true,
        }
    }

    /// More documents are to come: what none names so far may be scheduled all the same.
    #[must_use]
    pub fn still_coming(self) -> Self {
        Self {
            whole: false,
            ..self
        }
    }

    /// All of them, by digest.
    #[must_use]
    pub fn items(&self) -> &[Listed] {
        &self.items
    }

    /// What the manifest says of `digest`.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<&Listed> {
        let at = self
            .items
            .binary_search_by(|item| item.digest.cmp(digest))
            .ok()?;
        self.items.get(at)
    }

    /// The media type of `digest`, if the manifest names one.
    #[must_use]
    pub fn content_type(&self, digest: &Digest) -> Option<&str> {
        let item = self.find(digest)?;
        self.types
            .get(usize::from(item.kind))
            .map(String::as_str)
            .filter(|kind| !kind.is_empty())
    }

    pub(super) fn worth(&self, digest: &Digest, now_ms: i64) -> Worth {
        match self.find(digest) {
            None if self.whole => Worth::Unlisted,
            None => Worth::Scheduled(0),
            Some(item) => match item.phase(now_ms) {
                Phase::Expired => Worth::Expired,
                Phase::Later => Worth::Later(item.priority),
                Phase::Scheduled => Worth::Scheduled(item.priority),
            },
        }
    }
}

/// The order in which scheduled blobs have a place: what is here already, for it keeps it; then by priority, then the
/// smaller one, then the name.
#[must_use]
pub fn by_claim(a: (&Listed, bool), b: (&Listed, bool)) -> Ordering {
    let ((a, a_here), (b, b_here)) = (a, b);
    b_here
        .cmp(&a_here)
        .then(b.priority.cmp(&a.priority))
        .then(a.size.cmp(&b.size))
        .then(a.digest.cmp(&b.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(from_ms: i64, until_ms: i64) -> Listed {
        Listed {
            digest: Digest::of(b"a"),
            size: 1,
            priority: 3,
            urgent: false,
            from_ms,
            until_ms,
            kind: 0,
            document: None,
            source: 0,
            documents: 1,
        }
    }

    #[test]
    fn a_blob_is_scheduled_from_a_week_before_until_its_end() {
        let item = listed(SOON_MS + 100, SOON_MS + 200);
        assert_eq!(item.phase(99), Phase::Later);
        assert_eq!(item.phase(100), Phase::Scheduled);
        assert_eq!(item.phase(SOON_MS + 199), Phase::Scheduled);
        assert_eq!(item.phase(SOON_MS + 200), Phase::Expired);
        assert_eq!(listed(i64::MIN, i64::MAX).phase(0), Phase::Scheduled);
    }

    #[test]
    fn documents_of_one_blob_are_drawn_together() {
        let mut one = listed(100, 200);
        let mut other = listed(50, 150);
        (other.priority, other.urgent) = (7, true);
        one.join(&other);
        assert_eq!((one.from_ms, one.until_ms), (50, 200));
        assert_eq!((one.priority, one.urgent, one.documents), (7, true, 2));
    }
}
