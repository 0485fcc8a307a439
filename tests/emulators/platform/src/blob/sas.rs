//! Service shared access signatures of Blob storage, versions from 2020-12-06 on (Microsoft Learn, "create a service SAS").
//!
//! The signed text is sixteen fields, a line each; what is not in the query is an empty line. The resource is made of the
//! path that is asked for, so a signature for another container or blob does not fit.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::StatusCode;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use sha2::Sha256;

use super::reply::error_with;
use crate::percent::{Query, encode};
use crate::platform::rfc3339;
use crate::serve::reply::Reply;

/// The emulated storage account.
pub const ACCOUNT: &str = "simplementedata";
/// Its key (base64, as Azure shows it).
pub const ACCOUNT_KEY: &str = "Y29tcHRvaXIgdGVzdCBhY2NvdW50IGtleQ==";
/// The oldest version whose signed text is known here.
const OLDEST_VERSION: &str = "2020-12-06";
/// What a signature made here is of.
const OWN_VERSION: &str = "2021-12-02";

/// Why a signature opens nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifySasError {
    /// A closed container, and nothing that would open it.
    #[error("no signature")]
    None,
    /// A field is missing or makes no sense.
    #[error("{0} is missing or malformed")]
    Malformed(&'static str),
    /// Made with another key, or for something else.
    #[error("Signature did not match.")]
    Signature,
    /// Not yet, or no more.
    #[error(
        "Signature not valid in the specified time frame: Start [{start}] - Expiry [{expiry}] - Current [{current}]"
    )]
    TimeFrame {
        /// `st`, perhaps empty.
        start: String,
        /// `se`.
        expiry: String,
        /// The host's time.
        current: String,
    },
    /// It does not say `r`.
    #[error("it does not allow reading")]
    Permission,
}

/// Whether the query of a request opens `container` or `container/blob` for reading at `now_ms`.
pub fn verify(query: &Query, name: &str, now_ms: i64) -> Result<(), VerifySasError> {
    let field = |field: &'static str| query.value(field).unwrap_or_default();
    if query.value("sig").is_none() {
        return Err(VerifySasError::None);
    }
    for needed in ["sv", "sr", "sp", "se"] {
        if field(needed).is_empty() {
            return Err(VerifySasError::Malformed(needed));
        }
    }
    if field("sv") < OLDEST_VERSION {
        return Err(VerifySasError::Malformed("sv"));
    }
    let resource = match field("sr") {
        "b" => name,
        "c" => name.split('/').next().unwrap_or_default(),
        _ => return Err(VerifySasError::Malformed("sr")),
    };
    let signature = STANDARD
        .decode(field("sig"))
        .map_err(|_| VerifySasError::Signature)?;
    let resource = format!("/blob/{ACCOUNT}/{resource}");
    let mac = mac_of(&[
        field("sp"),
        field("st"),
        field("se"),
        &resource,
        field("si"),
        field("sip"),
        field("spr"),
        field("sv"),
        field("sr"),
        "",
        field("ses"),
        field("rscc"),
        field("rscd"),
        field("rsce"),
        field("rscl"),
        field("rsct"),
    ]);
    mac.verify_slice(&signature)
        .map_err(|_| VerifySasError::Signature)?;
    let expiry_ms = moment_ms(field("se")).ok_or(VerifySasError::Malformed("se"))?;
    let start_ms = match field("st") {
        "" => i64::MIN,
        start => moment_ms(start).ok_or(VerifySasError::Malformed("st"))?,
    };
    if now_ms < start_ms || now_ms >= expiry_ms {
        return Err(VerifySasError::TimeFrame {
            start: field("st").to_owned(),
            expiry: field("se").to_owned(),
            current: rfc3339(now_ms),
        });
    }
    if field("sp").contains('r') {
        Ok(())
    } else {
        Err(VerifySasError::Permission)
    }
}

impl VerifySasError {
    /// As the service answers.
    pub fn reply(&self) -> Reply {
        let (status, code, message, detail) = match self {
            Self::None => (
                StatusCode::NOT_FOUND,
                "ResourceNotFound",
                "The specified resource does not exist.",
                None,
            ),
            Self::Permission => (
                StatusCode::FORBIDDEN,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
                None,
            ),
            Self::Malformed(_) | Self::Signature | Self::TimeFrame { .. } => (
                StatusCode::FORBIDDEN,
                "AuthenticationFailed",
                "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
                Some(self.to_string()),
            ),
        };
        error_with(status, code, message, detail.as_deref())
    }
}

/// A signature for reading a container over HTTPS, as a query string.
pub fn of_container(container: &str, expires_at_s: i64) -> String {
    let expiry = rfc3339(expires_at_s * 1000);
    let resource = format!("/blob/{ACCOUNT}/{container}");
    let fields = [
        "r",
        "",
        &expiry,
        &resource,
        "",
        "",
        "https",
        OWN_VERSION,
        "c",
    ];
    let mut all = fields.to_vec();
    all.resize(16, "");
    let signature = encode(&STANDARD.encode(mac_of(&all).finalize().into_bytes()));
    format!(
        "sv={OWN_VERSION}&sr=c&sp=r&se={}&spr=https&sig={signature}",
        encode(&expiry)
    )
}

fn mac_of(fields: &[&str]) -> Hmac<Sha256> {
    let key = STANDARD.decode(ACCOUNT_KEY).expect("the key is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    mac.update(fields.join("\n").as_bytes());
    mac
}

/// One of the forms of ISO 8601 that the service takes: a day, to the minute, to the second or finer, in UTC.
fn moment_ms(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let bare = text.strip_suffix('Z').unwrap_or(text);
    let moment: DateTime = match bare.parse() {
        Ok(moment) => moment,
        Err(_) => bare.parse::<Date>().ok()?.into(),
    };
    let moment = moment.to_zoned(TimeZone::UTC).ok()?;
    Some(moment.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_S: i64 = 1_800_000_000;

    fn judge(sas: &str, name: &str, now_s: i64) -> Result<(), VerifySasError> {
        verify(&Query::parse(Some(sas)), name, now_s * 1000)
    }

    #[test]
    fn a_signature_opens_its_container_until_it_ends() {
        let sas = of_container("images", AT_S);
        assert_eq!(judge(&sas, "images/a b.png", AT_S - 1), Ok(()));
        assert_eq!(
            judge(&sas, "other/a.png", 1),
            Err(VerifySasError::Signature)
        );
        let over = judge(&sas, "images/a.png", AT_S).unwrap_err();
        assert!(matches!(over, VerifySasError::TimeFrame { .. }), "{over}");
        assert_eq!(over.reply().status(), 403);
    }

    #[test]
    fn a_changed_signature_is_refused() {
        let sas = of_container("images", AT_S);
        let longer = sas.replace("2027", "2037");
        assert_ne!(longer, sas);
        assert_eq!(
            judge(&longer, "images/a.png", 1),
            Err(VerifySasError::Signature)
        );
        let more = sas.replace("sp=r", "sp=rw");
        assert_eq!(
            judge(&more, "images/a.png", 1),
            Err(VerifySasError::Signature)
        );
        let cut = sas.replace("se=", "xx=");
        assert_eq!(
            judge(&cut, "images/a.png", 1),
            Err(VerifySasError::Malformed("se"))
        );
        assert_eq!(judge("", "images/a.png", 1), Err(VerifySasError::None));
    }

    #[test]
    fn moments_are_read_in_all_forms_of_the_service() {
        for text in [
            "2027-01-15",
            "2027-01-15T00:00Z",
            "2027-01-15T00:00:00Z",
            "2027-01-15T00:00:00.0000000Z",
        ] {
            assert_eq!(moment_ms(text), Some(1_799_971_200_000), "{text}");
        }
        assert_eq!(moment_ms("tomorrow"), None);
    }
}
