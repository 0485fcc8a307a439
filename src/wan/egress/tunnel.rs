//! The way through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6) with Basic sign-in (RFC 7617), and the proxy's own words
//! when it refuses.

use std::io::{self, Read, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::evidence::{host_of_location, one_line, sentence};
use super::failure::{ConnectError, Until};
use super::socket::Patience;
use super::{Cause, Evidence, Phase};
use crate::config::ProxyConfig;

/// The head of the proxy's answer at most; some send their whole policy in headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What ends it.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Of the proxy's page, looked at for its words.
const MAX_PAGE_BYTES: u64 = 16 * 1024;
/// A refusal stands; its page is waited for no longer than this.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);

/// Asks the proxy at the other end of `stream` for a way to `host` and `port`.
pub(super) fn open(
    stream: &mut (impl Read + Write),
    patience: &Patience,
    proxy: &ProxyConfig,
    host: &str,
    port: u16,
    until: Until,
) -> Result<(), ConnectError> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => until.passed(Phase::Tunnel, "no answer to CONNECT"),
        _ => ConnectError::new(Cause::ProxyFailed, Phase::Tunnel, error.to_string()),
    };
    stream
        .write_all(question(proxy, host, port).as_bytes())
        .and_then(|()| stream.flush())
        .map_err(lost)?;
    let (head, rest) = read_head(stream).map_err(lost)?;
    let is_whole = head.ends_with(HEAD_END);
    let Some(answer) = Head::read(&head) else {
        let detail = match one_line(&String::from_utf8_lossy(&head)) {
            None => "it closes the connection without an answer".to_owned(),
            Some(words) => format!("it does not speak HTTP: {words}"),
        };
        let cause = if head.is_empty() {
            Cause::ProxyFailed
        } else {
            Cause::ProxyScheme
        };
        return Err(ConnectError::new(cause, Phase::Tunnel, detail));
    };
    match answer.status {
        200..=299 if is_whole && rest.is_empty() => Ok(()),
        200..=299 => {
            let detail = "its answer has no end, or says more before the host can have spoken";
            Err(ConnectError::new(Cause::ProxyFailed, Phase::Tunnel, detail))
        }
        _ => {
            patience.until(std::time::Instant::now() + PAGE_PATIENCE.min(until.left()));
            let mut page = rest;
            // What came until the proxy closed or its time was up is enough.
            let _ = stream.take(MAX_PAGE_BYTES).read_to_end(&mut page);
            Err(refusal(&answer, &page, proxy))
        }
    }
}

fn question(proxy: &ProxyConfig, host: &str, port: u16) -> String {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let agent = concat!("comptoir/", env!("CARGO_PKG_VERSION"));
    let mut question = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {agent}\r\nProxy-Connection: Keep-Alive\r\n"
    );
    if !proxy.user.is_empty() {
        question.push_str("Proxy-Authorization: Basic ");
        question.push_str(&basic(proxy));
        question.push_str("\r\n");
    }
    question.push_str("\r\n");
    question
}

/// User and password as they are, in UTF-8.
fn basic(proxy: &ProxyConfig) -> String {
    BASE64_STANDARD.encode(format!("{}:{}", proxy.user, proxy.password.expose()))
}

/// Head and whatever came with it.
fn read_head(stream: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    while head.len() < MAX_HEAD_BYTES {
        let amount = match stream.read(&mut piece) {
            Ok(0) => break,
            // Through TLS, an end without farewell is an end all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        };
        head.extend_from_slice(&piece[..amount]);
        let end = head
            .windows(HEAD_END.len())
            .position(|window| window == HEAD_END);
        if let Some(end) = end {
            let rest = head.split_off(end + HEAD_END.len());
            return Ok((head, rest));
        }
    }
    Ok((head, Vec::new()))
}

struct Head {
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(head: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.splitn(3, ' ');
        if !words.next()?.starts_with("HTTP/") {
            return None;
        }
        let status = words.next()?.parse().ok()?;
        let reason = words.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self {
            status,
            reason,
            headers,
        })
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

fn refusal(answer: &Head, page: &[u8], proxy: &ProxyConfig) -> ConnectError {
    let schemes = offered(answer.all("proxy-authenticate"));
    // tinyproxy says 401 where 407 is meant, when the password is wrong.
    let wants_sign_in = matches!(answer.status, 401 | 407);
    let cause = match answer.status {
        _ if wants_sign_in => sign_in_cause(&schemes),
        300..=399 | 511 => Cause::CaptivePortal,
        400..=499 => Cause::ProxyDenied,
        _ => Cause::ProxyFailed,
    };
    let mut evidence = Evidence::at(Phase::Tunnel);
    evidence.status = Some(answer.status);
    evidence.led_to = answer.all("location").next().and_then(host_of_location);
    let squid_code = answer.all("x-squid-error").next();
    evidence.host_code = squid_code.and_then(one_line);
    let words = format!(
        "{} {}",
        answer.reason,
        words_of(&String::from_utf8_lossy(page))
    );
    evidence.proxy_said = sentence(&without_secrets(&words, proxy));
    let mut detail = format!("HTTP {}", answer.status);
    if wants_sign_in && proxy.user.is_empty() {
        detail.push_str(", no user is set");
    }
    if !schemes.is_empty() {
        detail = format!("{detail}, it offers {}", schemes.join(", "));
    }
    evidence.proxy_schemes = schemes;
    let mut error = ConnectError::new(cause, Phase::Tunnel, detail);
    *error.evidence = evidence;
    error
}

/// What a 407 means, by the kinds of sign-in that are offered.
fn sign_in_cause(schemes: &[String]) -> Cause {
    let offers = |names: &[&str]| {
        schemes
            .iter()
            .any(|scheme| names.contains(&scheme.as_str()))
    };
    if schemes.is_empty() || offers(&["Basic"]) {
        Cause::ProxyAuth
    } else if offers(&["Digest"]) {
        Cause::ProxyDigestOnly
    } else if offers(&["NTLM", "Negotiate"]) {
        Cause::ProxyNtlmOnly
    } else {
        Cause::ProxyScheme
    }
}

/// Kinds of sign-in that are known by name.
const SCHEMES: [&str; 6] = ["Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer"];

/// The kinds of sign-in that `Proxy-Authenticate` names: several headers, or several challenges in one (RFC 9110 section
/// 11.7.1). A scheme is a word that begins a challenge and is no parameter.
fn offered<'a>(challenges: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found = Vec::new();
    for part in challenges.flat_map(|challenge| challenge.split(',')) {
        let word = part.split_whitespace().next().unwrap_or_default();
        let scheme = SCHEMES.iter().find(|name| name.eq_ignore_ascii_case(word));
        found.extend(scheme.map(|name| (*name).to_owned()));
    }
    found.dedup();
    found
}

/// A page's text: no tags, no scripts, no styles, and the entities that words need.
fn words_of(page: &str) -> String {
    let mut words = String::new();
    let mut rest = page;
    while let Some((before, tag)) = rest.split_once('<') {
        words.push_str(before);
        words.push(' ');
        let name = tag.trim_start_matches('/').to_ascii_lowercase();
        let hidden = ["head", "script", "style", "title"];
        let end = hidden
            .iter()
            .filter(|hidden| {
                !tag.starts_with('/') && name.starts_with(**hidden) && !name.starts_with("header")
            })
            .find_map(|hidden| name.find(&format!("</{hidden}")));
        rest = match end {
            // Lower case has the same length where tags are ASCII; a page that plays tricks loses its words.
            Some(end) => tag.get(end..).unwrap_or_default(),
            None => tag.split_once('>').map_or("", |(_, after)| after),
        };
    }
    words.push_str(rest);
    for (entity, character) in [
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        words = words.replace(entity, character);
    }
    words
}

/// A page may repeat what it was sent.
fn without_secrets(words: &str, proxy: &ProxyConfig) -> String {
    if proxy.user.is_empty() {
        return words.to_owned();
    }
    let mut words = words.replace(&basic(proxy), "…");
    if !proxy.password.is_empty() {
        words = words.replace(proxy.password.expose(), "…");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProxyUrl;
    use crate::identity::Secret;

    fn proxy(user: &str, password: &str) -> ProxyConfig {
        ProxyConfig {
            url: ProxyUrl::parse("http://proxy:3128").unwrap(),
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    /// A proxy that has answered already.
    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(answer: &str, proxy: &ProxyConfig) -> (Result<(), ConnectError>, String) {
        let mut script = Script(io::Cursor::new(answer.as_bytes().to_vec()), Vec::new());
        let until = Until::within(Duration::from_secs(20), Cause::ProxyTimeout);
        let result = open(
            &mut script,
            &Patience::default(),
            proxy,
            "host.example",
            443,
            until,
        );
        (result, String::from_utf8(script.1).unwrap())
    }

    fn cause(answer: &str) -> Cause {
        ask(answer, &proxy("u", "p")).0.unwrap_err().cause
    }

    #[test]
    fn any_success_opens_the_way_and_credentials_go_verbatim() {
        for answer in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 299\r\nA: b\r\n\r\n",
        ] {
            let (result, question) = ask(answer, &proxy("shop\\till", "p%40@ss:w/\"é"));
            assert!(result.is_ok(), "{result:?}");
            assert!(
                question
                    .starts_with("CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\n")
            );
            let sent = question.split("Basic ").nth(1).unwrap().trim();
            let sent = BASE64_STANDARD.decode(sent).unwrap();
            assert_eq!(String::from_utf8(sent).unwrap(), "shop\\till:p%40@ss:w/\"é");
        }
        let (_, question) = ask("HTTP/1.1 200 OK\r\n\r\n", &proxy("", ""));
        assert!(!question.contains("Authorization"), "{question}");
    }

    #[test]
    fn the_kinds_of_sign_in_decide_what_a_407_means() {
        for (offer, expected) in [
            ("", Cause::ProxyAuth),
            (
                "Proxy-Authenticate: Basic realm=\"x\"\r\n",
                Cause::ProxyAuth,
            ),
            (
                "Proxy-Authenticate: Negotiate, NTLM, basic realm=\"a, Digest b\"\r\n",
                Cause::ProxyAuth,
            ),
            (
                "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n",
                Cause::ProxyDigestOnly,
            ),
            (
                "proxy-authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n",
                Cause::ProxyNtlmOnly,
            ),
            ("Proxy-Authenticate: Bearer\r\n", Cause::ProxyScheme),
        ] {
            let answer = format!("HTTP/1.1 407 Proxy Authentication Required\r\n{offer}\r\n");
            assert_eq!(cause(&answer), expected, "{offer}");
        }
    }

    #[test]
    fn other_answers_are_sorted() {
        for (answer, expected) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Cause::ProxyDenied),
            ("HTTP/1.0 401 Unauthorized\r\n\r\n", Cause::ProxyAuth),
            (
                "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
                Cause::ProxyDenied,
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n",
                Cause::CaptivePortal,
            ),
            (
                "HTTP/1.1 511 Network Authentication Required\r\n\r\n",
                Cause::CaptivePortal,
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\n",
                Cause::ProxyFailed,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", Cause::ProxyFailed),
            ("", Cause::ProxyFailed),
            ("\u{5}\u{0}", Cause::ProxyScheme),
            ("SSH-2.0-OpenSSH\r\n", Cause::ProxyScheme),
        ] {
            assert_eq!(cause(answer), expected, "{answer:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(2 * MAX_HEAD_BYTES));
        assert_eq!(cause(&endless), Cause::ProxyFailed);
    }

    #[test]
    fn a_login_page_in_the_proxys_place_shows_its_host() {
        let page = "HTTP/1.1 302 Found\r\nLocation: http://login.mall.example/a?b=c\r\n\r\n";
        let error = ask(page, &proxy("", "")).0.unwrap_err();
        let led_to = error.evidence.led_to.as_deref();
        assert_eq!(led_to, Some("login.mall.example"));
    }

    #[test]
    fn the_proxys_own_words_are_kept_on_one_line_and_without_the_password() {
        let page = "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n<html><head><title>ERROR</title>\
                    <style>p { color: red }</style></head><body><h1>Access&nbsp;Denied</h1>\n<p>Policy 17 &amp; rule hunter2: \
                    dTpodW50ZXIy<script>alert(1)</script></p>call 1234</body></html>";
        let error = ask(page, &proxy("u", "hunter2")).0.unwrap_err();
        assert_eq!(
            error.evidence.proxy_said.as_deref(),
            Some("Forbidden Access Denied Policy 17 & rule …: … call 1234")
        );
        assert_eq!(error.evidence.status, Some(403));
        assert_eq!(
            error.evidence.host_code.as_deref(),
            Some("ERR_ACCESS_DENIED 0")
        );
    }
}
