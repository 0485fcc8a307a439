//! Just enough HTTP/1.1 for a device: one request a connection, from the device's own address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, ensure};
use socket2::{Domain, Socket, Type};

/// For connecting, and for each read and write.
const DEADLINE: Duration = Duration::from_secs(5);

/// The most an answer may have, and a request to the control port.
pub const BODY_LIMIT: u64 = 65_536;

/// The most one head may have.
const HEAD_LIMIT: u64 = 16_384;

/// An answer.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Posts JSON to `authority` (host:port), from `local`.
pub fn post(
    authority: &str,
    local: IpAddr,
    path: &str,
    token: Option<&str>,
    body: &serde_json::Value,
) -> anyhow::Result<Answer> {
    let stream = connect(authority, local)?;
    let body = body.to_string();
    let authorization = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    write!(
        &stream,
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n{authorization}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(&stream);
    let (first, length) = read_head(&mut reader)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("not HTTP: {first:?}"))?;
    let body = read_body(&mut reader, length.unwrap_or(0))?;
    Ok(Answer { status, body })
}

/// The first line of a request or an answer, and its Content-Length.
pub fn read_head(reader: &mut impl BufRead) -> anyhow::Result<(String, Option<u64>)> {
    let mut head = reader.take(HEAD_LIMIT);
    let mut first = String::new();
    head.read_line(&mut first)?;
    let mut length = None;
    loop {
        let mut line = String::new();
        ensure!(
            head.read_line(&mut line)? > 0,
            "connection ended inside the head"
        );
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((first.trim_end().into(), length));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse().context("bad Content-Length")?);
        }
    }
}

/// A body of known length.
pub fn read_body(reader: &mut impl Read, length: u64) -> anyhow::Result<Vec<u8>> {
    ensure!(length <= BODY_LIMIT, "body of {length} bytes is too long");
    let mut body = vec![0; usize::try_from(length)?];
    reader
        .read_exact(&mut body)
        .context("connection ended inside the body")?;
    Ok(body)
}

fn connect(authority: &str, local: IpAddr) -> anyhow::Result<TcpStream> {
    let address = authority
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {authority}"))?
        .find(|address| address.is_ipv4() == local.is_ipv4())
        .with_context(|| format!("no address for {authority}"))?;
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect_timeout(&address.into(), DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        Ok::<_, std::io::Error>(socket.into())
    };
    open().with_context(|| format!("cannot connect to {authority}"))
}
