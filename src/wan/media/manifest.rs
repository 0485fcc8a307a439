//! The platform's manifest: all documents of collection `media`, drawn together by blob.

use std::collections::HashMap;

use super::document::{self, Announced, RefuseMediaError};
use crate::config::HttpsUrl;
use crate::digest::Digest;
use crate::store::blobs::{Listed, Shelf};
use crate::store::catalogue::MEDIA_COLLECTION;
use crate::store::{Catalogue, ReadError, Stored};
use crate::units::ByteSize;

/// Blobs that are followed at most; documents of further ones are refused.
pub(super) const MAX_LISTED: usize = 50_000;
/// Media types that are told apart; blobs of further ones are served as bytes.
const MAX_TYPES: usize = 256;
/// Documents read at a time.
const WALK_ITEMS: usize = 100;
/// Refused documents that are named.
const NAMED: usize = 3;

/// What the documents say, all together.
pub(super) struct Manifest {
    pub(super) shelf: Shelf,
    pub(super) refused: Refused,
}

/// Documents that can't be followed: set aside and told, they hold up nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) count: u64,
    named: Vec<String>,
}

impl Refused {
    fn add(&mut self, id: &str, why: &RefuseMediaError) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{id}: {why}"));
        }
    }

    /// For support.
    pub(super) fn detail(&self) -> String {
        let more = self.count.saturating_sub(self.named.len() as u64);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        format!("{}{more}", self.named.join("; "))
    }
}

/// Reads all documents. Of several that name one blob, the first whose address `may_be_asked` says where it is. `life` is
/// called as the walk gets on.
pub(super) fn read(
    catalogue: &Catalogue,
    media_url: &HttpsUrl,
    limit: ByteSize,
    may_be_asked: impl Fn(&Digest, u64) -> bool,
    life: impl Fn(),
) -> Result<Manifest, ReadError> {
    // Asked first: what ends while the documents are read counts from the next walk on.
    let whole = catalogue.cursor()?.is_some() && catalogue.running_snapshot()?.is_none();
    let mut gathered = Gathered::default();
    let mut after_id = String::new();
    loop {
        let page = catalogue.list(MEDIA_COLLECTION, &after_id, WALK_ITEMS)?;
        let Some(last) = page.last() else { break };
        after_id.clone_from(&last.id);
        for stored in &page {
            let announced = document::read(&stored.body, media_url, limit);
            let added =
                announced.and_then(|announced| gathered.add(stored, &announced, &may_be_asked));
            if let Err(why) = added {
                gathered.refused.add(&stored.id, &why);
            }
        }
        life();
    }
    let shelf = Shelf::new(gathered.items, gathered.types);
    Ok(Manifest {
        shelf: if whole { shelf } else { shelf.still_coming() },
        refused: gathered.refused,
    })
}

/// Stands for the state of a document that says where a blob is.
pub(super) fn source_of(stored: &Stored, announced: &Announced) -> u64 {
    let text = format!("{}\n{}", announced.url, stored.version);
    let digest = Digest::of(text.as_bytes());
    let (first, _) = digest.as_bytes().split_at(8);
    u64::from_be_bytes(first.try_into().expect("eight bytes were split off"))
}

#[derive(Default)]
struct Gathered {
    items: Vec<Listed>,
    by_digest: HashMap<Digest, usize>,
    types: Vec<String>,
    refused: Refused,
}

impl Gathered {
    fn add(
        &mut self,
        stored: &Stored,
        announced: &Announced,
        may_be_asked: &impl Fn(&Digest, u64) -> bool,
    ) -> Result<(), RefuseMediaError> {
        let digest = announced.digest;
        let is_named_so = stored.id.parse() == Ok(digest);
        let item = Listed {
            digest,
            size: announced.size,
            priority: announced.priority,
            urgent: announced.urgent,
            from_ms: announced.from_ms,
            until_ms: announced.until_ms,
            kind: 0,
            document: (!is_named_so).then(|| stored.id.as_str().into()),
            source: source_of(stored, announced),
            documents: 1,
        };
        let Some(&at) = self.by_digest.get(&digest) else {
            if self.items.len() >= MAX_LISTED {
                return Err(RefuseMediaError::TooMany(MAX_LISTED));
            }
            let kind = self.kind(&announced.content_type);
            self.by_digest.insert(digest, self.items.len());
            self.items.push(Listed { kind, ..item });
            return Ok(());
        };
        let known = &mut self.items[at];
        if known.size != item.size {
            return Err(RefuseMediaError::Contradiction);
        }
        known.join(&item);
        if !may_be_asked(&digest, known.source) && may_be_asked(&digest, item.source) {
            known.source = item.source;
            known.document = item.document;
        }
        Ok(())
    }

    fn kind(&mut self, name: &str) -> u16 {
        if self.types.is_empty() {
            self.types.push(String::new());
        }
        let at = self.types.iter().position(|known| known == name);
        let at = match at {
            Some(at) => at,
            None if self.types.len() < MAX_TYPES => {
                self.types.push(name.to_owned());
                self.types.len() - 1
            }
            None => 0,
        };
        u16::try_from(at).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::egress::OutsideContract;

    fn stored(id: &str, body: &str) -> Stored {
        Stored {
            price: None,
            collection: MEDIA_COLLECTION.into(),
            id: id.into(),
            version: 1,
            seq: 1,
            etag: String::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn announced(url: &str, size: u64, content_type: &str) -> Announced {
        Announced {
            digest: Digest::of(b"x"),
            size,
            url: url.into(),
            content_type: content_type.into(),
            priority: 1,
            urgent: false,
            from_ms: 0,
            until_ms: 10,
        }
    }

    #[test]
    fn documents_of_one_blob_are_one_item_that_follows_an_address_that_works() {
        let mut gathered = Gathered::default();
        let (first, second) = (
            announced("https://a", 5, "image/png"),
            announced("https://b", 5, ""),
        );
        let bad = source_of(&stored("one", ""), &first);
        let may_be_asked = |_: &Digest, source| source != bad;
        gathered
            .add(&stored("one", ""), &first, &may_be_asked)
            .unwrap();
        gathered
            .add(&stored("two", ""), &second, &may_be_asked)
            .unwrap();
        let larger = announced("https://c", 6, "");
        assert_eq!(
            gathered.add(&stored("three", ""), &larger, &may_be_asked),
            Err(RefuseMediaError::Contradiction)
        );
        let shelf = Shelf::new(gathered.items, gathered.types);
        let [item] = shelf.items() else {
            panic!("one item, not {:?}", shelf.items())
        };
        assert_eq!((item.document.as_deref(), item.documents), (Some("two"), 2));
        assert_eq!(shelf.content_type(&item.digest), Some("image/png"));
    }

    #[test]
    fn a_document_named_by_the_digest_needs_no_name_beside_it() {
        let mut gathered = Gathered::default();
        let digest = Digest::of(b"x").to_string();
        let item = announced("https://a", 5, "");
        gathered
            .add(&stored(&digest, ""), &item, &|_, _| true)
            .unwrap();
        assert_eq!(gathered.items[0].document, None);
    }

    #[test]
    fn refused_documents_are_counted_and_the_first_are_named() {
        let mut refused = Refused::default();
        for id in ["a", "b", "c", "d", "e"] {
            let asked = "evil.example:443".to_owned();
            refused.add(id, &OutsideContract { asked }.into());
        }
        let host = "its address is refused: evil.example:443 is no host this shop was opened for";
        let detail = format!("a: {host}; b: {host}; c: {host}; and 2 more");
        assert_eq!(refused.detail(), detail);
    }
}
