//! What was seen beside the cause: whose certificate, the proxy's own words, by how much a clock is wrong.
//!
//! It is shown to staff and administrators as it is, so everything here is bounded, on one line, and never holds a secret.

/// A name or line of the other side at most, in characters; longer is cut.
const MAX_LINE: usize = 160;
/// What a proxy says of its refusal at most, in characters: its page begins with greetings.
const MAX_SENTENCE: usize = 400;

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Its address is judged: nothing has left yet.
    Address,
    /// The name of the host, or of the proxy, is looked up.
    #[default]
    Resolve,
    /// TCP to the host, or to the proxy.
    Connect,
    /// TLS with the proxy itself.
    ProxyTls,
    /// The proxy is asked to open the way.
    Tunnel,
    /// TLS with the host.
    Tls,
    /// The request is sent and the answer's head awaited.
    Exchange,
    /// The answer's body comes.
    Body,
}

impl Phase {
    /// Stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::ProxyTls => "proxy_tls",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Exchange => "exchange",
            Self::Body => "body",
        }
    }
}

/// What was seen when a request failed. What does not apply, or was not seen, is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// How far it came.
    pub phase: Phase,
    /// Who signed the refused certificate: with interception, the interceptor's name.
    pub issuer: Option<String>,
    /// Whom the refused certificate names as its holder.
    pub subject: Option<String>,
    /// The host names and addresses the refused certificate is for.
    pub names: Vec<String>,
    /// How far the box's clock is ahead (negative: behind), in seconds, as the other side's time or certificate shows.
    pub skew_s: Option<i64>,
    /// When the refused certificate begins to be valid, in seconds since 1970, if it is refused for that.
    pub valid_from_s: Option<i64>,
    /// What the proxy itself says of its refusal, from its page or status line.
    pub proxy_said: Option<String>,
    /// The kinds of sign-in the proxy offers: "Basic", "Digest", "NTLM", "Negotiate".
    pub proxy_schemes: Vec<String>,
    /// The host a redirect leads to: a login page's. With an address outside the contract, the host and port it names.
    pub led_to: Option<String>,
    /// The HTTP status: of the proxy to CONNECT in [`Phase::Tunnel`], of the host otherwise.
    pub status: Option<u16>,
    /// The code the host itself gives its error (Azure's `x-ms-error-code`).
    pub host_code: Option<String>,
}

impl Evidence {
    pub(super) fn at(phase: Phase) -> Self {
        Self {
            phase,
            ..Self::default()
        }
    }
}

/// Foreign text on one line: control characters and runs of white space become one space, and it is cut at a bound.
pub(super) fn one_line(text: &str) -> Option<String> {
    cut(text, MAX_LINE)
}

/// The same for what people are told at length.
pub(super) fn sentence(text: &str) -> Option<String> {
    cut(text, MAX_SENTENCE)
}

fn cut(text: &str, max: usize) -> Option<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c))
        .filter(|word| !word.is_empty())
        .take(max)
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(max) {
        Some((end, _)) => Some(format!("{}…", &line[..end])),
        None => (!line.is_empty()).then_some(line),
    }
}

/// The host that `Location` leads to, `None` within the same one; a network's login page shows its owner by it.
pub(super) fn host_of_location(location: &str) -> Option<String> {
    let (_, rest) = location.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    one_line(authority.rsplit('@').next()?)
}

/// Characters that turn a line around or hide in it.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_tells_its_host_and_nothing_else() {
        for (location, expected) in [
            (
                "http://login.hotel.example:8080/?u=1",
                Some("login.hotel.example:8080"),
            ),
            ("https://user:pass@login.example#x", Some("login.example")),
            ("/elsewhere", None),
            ("https:///", None),
        ] {
            assert_eq!(host_of_location(location).as_deref(), expected);
        }
    }

    #[test]
    fn foreign_text_becomes_one_bounded_line() {
        assert_eq!(
            one_line(" Access\r\n\tdenied\u{0}by \u{202e}policy "),
            Some("Access denied by policy".to_owned())
        );
        assert_eq!(one_line(" \n\u{feff}"), None);
        let long = one_line(&"é".repeat(1000)).unwrap();
        assert_eq!(long.chars().count(), MAX_LINE + 1);
        assert!(long.ends_with('…'));
    }
}
