//! Questions to the running box from outside the server: does a port answer, does the disk keep what it was given.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::config::LanPort;
use crate::durable::{ProbeDiskError, probe_disk};

/// Until a port takes the connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Until it answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest status line that is read.
const MAX_STATUS_LINE: usize = 256;

/// The longest status document that is read.
const MAX_STATUS: usize = 1 << 20;

/// What is written to the disk and read back.
const PROBE_BYTES: usize = 64 * 1024;

const PROBE_FILE: &str = "state/probe";

/// A port that does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum PortProbeError {
    /// Nobody there, or nothing comes.
    #[error("port {name} ({addr}) does not answer: {source}")]
    Silent {
        /// The port's name.
        name: &'static str,
        /// Where it was asked.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something else than our server, or a server that is not ready.
    #[error("port {name} ({addr}) answers {status:?}")]
    Wrong {
        /// The port's name.
        name: &'static str,
        /// Where it was asked.
        addr: SocketAddr,
        /// Its status line.
        status: String,
    },
}

/// Asks a port a real question: the front door must say that the server is ready; every other port must know that this
/// question is none of its own (421) or ask who we are (401).
///
/// # Errors
/// When it does not.
pub fn probe_port(port: LanPort, bound_to: SocketAddr) -> Result<(), PortProbeError> {
    let (name, addr) = (port.name(), reachable(bound_to));
    let status = ask(addr).map_err(|source| PortProbeError::Silent { name, addr, source })?;
    let code = status.split(' ').nth(1).unwrap_or_default();
    let wanted: &[&str] = if port == LanPort::Front {
        &["200"]
    } else {
        &["200", "401", "421"]
    };
    if status.starts_with("HTTP/1.") && wanted.contains(&code) {
        return Ok(());
    }
    Err(PortProbeError::Wrong { name, addr, status })
}

/// Where a port that is bound to every address is reached from this box.
fn reachable(bound_to: SocketAddr) -> SocketAddr {
    let ip = match bound_to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound_to.port())
}

fn ask(addr: SocketAddr) -> io::Result<String> {
    let answer = exchange(addr, "/readyz", MAX_STATUS_LINE)?;
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Whether the box's own status says that the platform answers; `None` when it says nothing about it.
#[must_use]
pub fn platform_is_up(front: SocketAddr) -> Option<bool> {
    let status = ask_status(front).ok()?;
    Some(status.get("platform")?.get("data")?.as_str()? == "up")
}

/// What the running server says of itself at `/status.json` of its front port.
///
/// # Errors
/// When it does not answer, or with something else.
pub fn ask_status(front: SocketAddr) -> io::Result<serde_json::Value> {
    let answer = exchange(reachable(front), "/status.json", MAX_STATUS)?;
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?
        + 4;
    Ok(serde_json::from_slice(&answer[body..])?)
}

/// Asks `path` and returns what comes, as far as the end or `limit`.
fn exchange(addr: SocketAddr, path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    // One write: a server that answers early and closes must not meet the second half of the question.
    let question = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut answer)?;
    Ok(answer)
}

/// Writes random bytes to the data folder, makes them durable, drops them from memory and reads them back from the disk.
///
/// # Errors
/// When any of it fails; the probe file is removed in every case.
pub fn probe_data_disk(data_dir: &Path) -> Result<(), ProbeDiskError> {
    probe_disk(&data_dir.join(PROBE_FILE), PROBE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;

    /// A port that gives everyone the same answer.
    fn port_that_says(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        addr
    }

    #[test]
    fn the_front_door_must_be_ready_and_other_ports_must_be_themselves() {
        let ready = port_that_says("HTTP/1.1 200 OK\r\n\r\n");
        let not_mine = port_that_says("HTTP/1.1 421 Misdirected Request\r\n\r\n");
        let starting = port_that_says("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        probe_port(LanPort::Front, ready).unwrap();
        probe_port(LanPort::Orders, not_mine).unwrap();
        assert!(probe_port(LanPort::Front, not_mine).is_err());
        let error = probe_port(LanPort::Front, starting).unwrap_err();
        assert!(
            error.to_string().contains("503 Service Unavailable"),
            "{error}"
        );
        assert!(probe_port(LanPort::Orders, starting).is_err());
    }

    #[test]
    fn the_platform_is_up_when_the_status_says_so() {
        let status = |body| platform_is_up(port_that_says(body));
        assert_eq!(
            status("HTTP/1.1 200 OK\r\n\r\n{\"platform\":{\"data\":\"up\"}}"),
            Some(true)
        );
        assert_eq!(
            status("HTTP/1.1 200 OK\r\n\r\n{\"platform\":{\"data\":\"down\"}}"),
            Some(false)
        );
        assert_eq!(status("HTTP/1.1 200 OK\r\n\r\n{}"), None);
        assert_eq!(status("HTTP/1.1 503 Service Unavailable\r\n\r\n"), None);
    }

    #[test]
    fn a_port_that_is_closed_or_speaks_something_else_is_told_apart() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(
            probe_port(LanPort::Media, closed),
            Err(PortProbeError::Silent { .. })
        ));
        let other = port_that_says("220 mail.example ESMTP\r\n");
        assert!(matches!(
            probe_port(LanPort::Media, other),
            Err(PortProbeError::Wrong { .. })
        ));
        let mute = port_that_says("");
        assert!(matches!(
            probe_port(LanPort::Media, mute),
            Err(PortProbeError::Silent { .. })
        ));
    }

    #[test]
    fn an_address_that_means_every_address_is_reached_on_loopback() {
        assert_eq!(
            reachable("0.0.0.0:80".parse().unwrap()),
            "127.0.0.1:80".parse().unwrap()
        );
        assert_eq!(
            reachable("10.0.0.7:80".parse().unwrap()),
            "10.0.0.7:80".parse().unwrap()
        );
    }

    #[test]
    fn a_disk_is_proved_and_nothing_is_left_on_it() {
        let dir = tempfile::tempdir().unwrap();
        probe_data_disk(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 0);
        let error = probe_data_disk(Path::new("/proc/1")).unwrap_err();
        assert!(
            matches!(
                error,
                ProbeDiskError::Io {
                    attempt: "be written",
                    ..
                }
            ),
            "{error}"
        );
    }
}
