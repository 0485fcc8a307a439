//! The way through a SOCKS5 proxy (RFC 1928), with user and password (RFC 1929). The host goes to the proxy as a name, so
//! that the proxy resolves it.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use super::failure::{ConnectError, Until};
use super::{Cause, Phase};
use crate::config::ProxyConfig;

const VERSION: u8 = 5;
const NO_SIGN_IN: u8 = 0;
const PASSWORD: u8 = 2;
const NOTHING_FITS: u8 = 0xff;

/// Asks the proxy at the other end of `stream` for a way to `host` and `port`.
pub(super) fn open(
    stream: &mut (impl Read + Write),
    proxy: &ProxyConfig,
    host: &str,
    port: u16,
    until: Until,
) -> Result<(), ConnectError> {
    talk(stream, proxy, host, port).map_err(|problem| match problem {
        Problem::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut => until.passed(Phase::Tunnel, "no answer"),
            _ => ConnectError::new(Cause::ProxyFailed, Phase::Tunnel, error.to_string()),
        },
        Problem::Said(cause, detail) => {
            let mut error = ConnectError::new(cause, Phase::Tunnel, detail.clone());
            error.evidence.proxy_said = Some(detail);
            error
        }
    })
}

enum Problem {
    Io(io::Error),
    Said(Cause, String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn said(cause: Cause, what: impl Into<String>) -> Problem {
    Problem::Said(cause, what.into())
}

fn talk(
    stream: &mut (impl Read + Write),
    proxy: &ProxyConfig,
    host: &str,
    port: u16,
) -> Result<(), Problem> {
    let greeting: &[u8] = if proxy.user.is_empty() {
        &[VERSION, 1, NO_SIGN_IN]
    } else {
        &[VERSION, 2, NO_SIGN_IN, PASSWORD]
    };
    stream.write_all(greeting)?;
    let [version, method] = read(stream)?;
    if version != VERSION {
        return Err(said(
            Cause::ProxyScheme,
            "it does not speak SOCKS version 5",
        ));
    }
    match method {
        NO_SIGN_IN => {}
        PASSWORD if !proxy.user.is_empty() => sign_in(stream, proxy)?,
        NOTHING_FITS if proxy.user.is_empty() => {
            return Err(said(Cause::ProxyAuth, "it wants a sign-in, no user is set"));
        }
        NOTHING_FITS => {
            return Err(said(Cause::ProxyScheme, "it takes no user and password"));
        }
        other => {
            return Err(said(
                Cause::ProxyScheme,
                format!("it wants sign-in method {other}"),
            ));
        }
    }
    let mut question = vec![VERSION, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            question.push(1);
            question.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            question.push(4);
            question.extend(address.octets());
        }
        Err(_) => {
            question.push(3);
            push_text(&mut question, host)?;
        }
    }
    question.extend(port.to_be_bytes());
    stream.write_all(&question)?;
    let [_, verdict, _, kind] = read(stream)?;
    verdict_of(verdict)?;
    // The address the proxy uses of its own side; it has to be read, nothing else.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(read::<1>(stream)?[0]),
        _ => return Err(said(Cause::ProxyScheme, "its answer is no SOCKS answer")),
    };
    stream.read_exact(&mut vec![0; length + 2])?;
    Ok(())
}

fn sign_in(stream: &mut (impl Read + Write), proxy: &ProxyConfig) -> Result<(), Problem> {
    let mut question = vec![1];
    push_text(&mut question, &proxy.user)?;
    push_text(&mut question, proxy.password.expose())?;
    stream.write_all(&question)?;
    match read(stream)? {
        [_, 0] => Ok(()),
        _ => Err(said(Cause::ProxyAuth, "it refuses user and password")),
    }
}

/// The codes of RFC 1928 section 6.
fn verdict_of(code: u8) -> Result<(), Problem> {
    let (cause, what) = match code {
        0 => return Ok(()),
        1 => (Cause::ProxyFailed, "general failure"),
        2 => (Cause::ProxyDenied, "not allowed by its rules"),
        3 => (Cause::ProxyFailed, "network unreachable"),
        4 => (Cause::ProxyFailed, "host unreachable"),
        5 => (Cause::ProxyFailed, "connection refused"),
        6 => (Cause::ProxyFailed, "time to live expired"),
        7 | 8 => (Cause::ProxyScheme, "it can't do what is asked of it"),
        _ => (Cause::ProxyFailed, "an unknown answer"),
    };
    Err(said(cause, what))
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), Problem> {
    let length = u8::try_from(text.len())
        .map_err(|_| said(Cause::ProxyScheme, "SOCKS can't carry more than 255 bytes"))?;
    bytes.push(length);
    bytes.extend(text.bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ProxyUrl;
    use crate::identity::Secret;

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

    fn ask(answers: &[u8], user: &str, host: &str) -> (Result<(), Cause>, Vec<u8>) {
        let proxy = ProxyConfig {
            url: ProxyUrl::parse("socks5://proxy").unwrap(),
            user: user.to_owned(),
            password: Secret::new("p:w"),
        };
        let mut script = Script(io::Cursor::new(answers.to_vec()), Vec::new());
        let until = Until::within(Duration::from_secs(20), Cause::ProxyTimeout);
        let result = open(&mut script, &proxy, host, 443, until);
        (result.map_err(|error| error.cause), script.1)
    }

    #[test]
    fn a_name_goes_to_the_proxy_as_a_name_and_an_address_as_an_address() {
        let granted = [5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 0, 80];
        let (result, asked) = ask(&granted, "", "a.example");
        assert_eq!(result, Ok(()));
        assert_eq!(asked, b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x01\xbb");
        let (result, asked) = ask(&granted, "", "10.0.0.1");
        assert_eq!(result, Ok(()));
        assert_eq!(
            asked,
            b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x01\xbb"
        );
        let by_name = [5, 2, 1, 0, 5, 0, 0, 3, 2, b'a', b'b', 0, 80];
        let (result, asked) = ask(&by_name, "u:1", "::1");
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with(b"\x05\x02\x00\x02\x01\x03u:1\x03p:w\x05\x01\x00\x04"));
    }

    #[test]
    fn every_refusal_has_its_cause() {
        for (answers, user, expected) in [
            (&[5, 0xff][..], "", Cause::ProxyAuth),
            (&[5, 0xff], "u", Cause::ProxyScheme),
            (&[5, 1], "u", Cause::ProxyScheme),
            (&[5, 2, 1, 1], "u", Cause::ProxyAuth),
            (&[5, 0, 5, 2, 0, 1], "", Cause::ProxyDenied),
            (&[5, 0, 5, 4, 0, 1], "", Cause::ProxyFailed),
            (&[5, 0, 5, 7, 0, 1], "", Cause::ProxyScheme),
            (&[5, 0, 5, 0, 0, 9], "", Cause::ProxyScheme),
            (b"HTTP/1.1 400 Bad Request\r\n", "", Cause::ProxyScheme),
            (&[5], "", Cause::ProxyFailed),
        ] {
            assert_eq!(ask(answers, user, "a").0, Err(expected), "{answers:?}");
        }
        let long = "a".repeat(256);
        assert_eq!(ask(&[5, 0], "", &long).0, Err(Cause::ProxyScheme));
    }
}
