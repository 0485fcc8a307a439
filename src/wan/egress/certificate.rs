//! What a certificate says of itself, for the evidence: holder, issuer, names. Read leniently and bounded; nothing here
//! decides about trust, that is rustls' alone.
//!
//! X.509 in DER: RFC 5280 section 4.1 (structure), section 4.2.1.6 (alternative names); RFC 6962 section 3.3 (the mark that
//! public authorities put in).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::evidence::one_line;

/// Names of a certificate at most; a platform's certificate may carry hundreds.
const MAX_NAMES: usize = 6;
/// Elements looked at in one sequence, at most.
const MAX_ELEMENTS: usize = 64;

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
const EXPLICIT_VERSION: u8 = 0xa0;

/// 2.5.4.3, 2.5.4.10, 2.5.29.17, 1.3.6.1.4.1.11129.2.4.2
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const TRANSPARENCY: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];

/// A holder or an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Party {
    /// As it stands in the certificate, to compare.
    pub(super) raw: Vec<u8>,
    pub(super) common_name: Option<String>,
    pub(super) organization: Option<String>,
}

impl Party {
    /// Reads an X.501 name.
    pub(super) fn read(der: &[u8]) -> Self {
        let mut party = Self {
            raw: der.to_vec(),
            ..Self::default()
        };
        for set in elements(der) {
            for attribute in elements(set.content) {
                let mut parts = elements(attribute.content);
                let (Some(kind), Some(value)) = (parts.next(), parts.next()) else {
                    continue;
                };
                let field = match kind.content {
                    COMMON_NAME => &mut party.common_name,
                    ORGANIZATION => &mut party.organization,
                    _ => continue,
                };
                *field = one_line(&text(&value));
            }
        }
        party
    }

    /// For people: "common name, organization".
    pub(super) fn shown(&self) -> Option<String> {
        match (&self.common_name, &self.organization) {
            (Some(name), Some(organization)) if name != organization => {
                Some(format!("{name}, {organization}"))
            }
            (Some(one), _) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }
}

/// A certificate's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Words {
    pub(super) issuer: Party,
    pub(super) subject: Party,
    /// From when to when it holds, in seconds since 1970.
    pub(super) validity_s: Option<(i64, i64)>,
    /// DNS names and addresses, a few of them.
    pub(super) names: Vec<String>,
    /// It carries the timestamps that public authorities put in and interceptors do not.
    pub(super) is_of_public_authority: bool,
}

impl Words {
    /// Reads what can be read; a certificate in pieces gives less.
    pub(super) fn read(der: &[u8]) -> Self {
        let mut words = Self::default();
        let Some(certificate) = elements(der).next() else {
            return words;
        };
        let Some(body) = elements(certificate.content).next() else {
            return words;
        };
        // version?, serial, signature, issuer, validity, subject, key, …, extensions?
        let mut fields = elements(body.content)
            .filter(|field| field.tag != EXPLICIT_VERSION)
            .skip(2);
        if let Some(issuer) = fields.next() {
            words.issuer = Party::read(issuer.content);
        }
        words.validity_s = fields.next().and_then(|field| validity_s(field.content));
        if let Some(subject) = fields.next() {
            words.subject = Party::read(subject.content);
        }
        let extensions = fields.find(|field| field.tag == EXTENSIONS);
        let list = extensions.and_then(|extensions| elements(extensions.content).next());
        for extension in list.iter().flat_map(|list| elements(list.content)) {
            let mut parts = elements(extension.content);
            let Some(kind) = parts.next().filter(|part| part.tag == OID) else {
                continue;
            };
            let Some(value) = parts.find(|part| part.tag == OCTETS) else {
                continue;
            };
            match kind.content {
                ALTERNATIVE_NAMES => words.names = alternative_names(value.content),
                TRANSPARENCY => words.is_of_public_authority = true,
                _ => {}
            }
        }
        words
    }

    /// Signed by itself, as far as its words go.
    pub(super) fn is_self_signed(&self) -> bool {
        self.issuer.raw == self.subject.raw
    }
}

fn validity_s(der: &[u8]) -> Option<(i64, i64)> {
    let mut times = elements(der).map(|time| time_s(&time));
    Some((times.next()??, times.next()??))
}

/// UTCTime `YYMMDDHHMMSSZ` of the years 1950 to 2049, GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn time_s(time: &Element<'_>) -> Option<i64> {
    const GENERALIZED: u8 = 0x18;
    let text = std::str::from_utf8(time.content).ok()?;
    let (year, rest) = text.split_at_checked(if time.tag == GENERALIZED { 4 } else { 2 })?;
    let year = match year.parse::<i16>().ok()? {
        year @ 0..50 if time.tag != GENERALIZED => 2000 + year,
        year @ 50..100 if time.tag != GENERALIZED => 1900 + year,
        year => year,
    };
    let text = format!("{year:04}{rest}");
    let time = jiff::fmt::strtime::parse("%Y%m%d%H%M%SZ", &text).ok()?;
    let zoned = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    Some(zoned.ok()?.timestamp().as_second())
}

fn alternative_names(der: &[u8]) -> Vec<String> {
    let list = elements(der).next().filter(|list| list.tag == SEQUENCE);
    list.iter()
        .flat_map(|list| elements(list.content))
        .filter_map(|name| match (name.tag, name.content) {
            (0x82, dns) => one_line(&String::from_utf8_lossy(dns)),
            (0x87, [a, b, c, d]) => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            (0x87, address) => {
                let octets: [u8; 16] = address.try_into().ok()?;
                Some(Ipv6Addr::from(octets).to_string())
            }
            _ => None,
        })
        .take(MAX_NAMES)
        .collect()
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// UTF8String, PrintableString, IA5String and Latin-1 as they are near enough; BMPString has two bytes a character.
fn text(value: &Element<'_>) -> String {
    const BMP: u8 = 0x1e;
    if value.tag == BMP {
        let units: Vec<u16> = value
            .content
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        return String::from_utf16_lossy(&units);
    }
    String::from_utf8_lossy(value.content).into_owned()
}

/// The elements of a DER content, up to the first that can't be read.
fn elements(mut der: &[u8]) -> impl Iterator<Item = Element<'_>> {
    std::iter::from_fn(move || {
        let (element, rest) = split(der)?;
        der = rest;
        Some(element)
    })
    .take(MAX_ELEMENTS)
}

fn split(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Element { tag, content }, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair};

    use super::*;

    fn certificate(extensions: Vec<CustomExtension>) -> Vec<u8> {
        let names = [
            "a.example".to_owned(),
            "10.0.0.1".to_owned(),
            "fd00::1".to_owned(),
        ];
        let mut params = CertificateParams::new(names).unwrap();
        // One of each form of date: the century turns in 2050.
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(2050, 1, 1);
        params
            .distinguished_name
            .push(DnType::CommonName, "Zürich\nproxy");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Shop AG");
        params.custom_extensions = extensions;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_parties_and_names() {
        let words = Words::read(&certificate(Vec::new()));
        assert_eq!(
            words.subject.shown().as_deref(),
            Some("Zürich proxy, Shop AG")
        );
        assert_eq!(words.names, ["a.example", "10.0.0.1", "fd00::1"]);
        assert!(words.is_self_signed());
        let (from_s, to_s) = (157_766_400, 2_524_608_000);
        assert_eq!(words.validity_s, Some((from_s, to_s)));
        assert!(!words.is_of_public_authority);
        let stamps = CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2],
            vec![0x04, 0x00],
        );
        assert!(Words::read(&certificate(vec![stamps])).is_of_public_authority);
    }

    #[test]
    fn a_certificate_cut_or_damaged_anywhere_gives_less_and_never_fails() {
        let whole = certificate(Vec::new());
        for end in 0..whole.len() {
            Words::read(&whole[..end]);
        }
        for at in 0..whole.len() {
            for value in [0x00, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                Words::read(&damaged);
            }
        }
        assert_eq!(Words::read(b""), Words::default());
    }
}
