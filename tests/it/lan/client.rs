//! A client that sends exactly the bytes it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No answer takes longer.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Request {
    addr: SocketAddr,
    head: String,
    body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(addr: SocketAddr, method: &str, path: &str) -> Self {
        Self {
            addr,
            head: format!("{method} {path} HTTP/1.1\r\nhost: box\r\nconnection: close\r\n"),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len();
        self.header("content-length", &length.to_string())
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    pub fn send(self) -> Answer {
        let bytes = [self.head.as_bytes(), b"\r\n", &self.body].concat();
        raw(self.addr, &bytes)
    }

    /// Sends the request and gives the open connection.
    pub fn open(self) -> TcpStream {
        let stream = connect(self.addr);
        self.open_on(stream)
    }

    /// The same with a receive buffer of a few pages, which a reader that does not read fills soon.
    pub fn open_narrow(self) -> TcpStream {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(self.addr),
            socket2::Type::STREAM,
            None,
        )
        .unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.addr.into()).unwrap();
        self.open_on(socket.into())
    }

    fn open_on(self, mut stream: TcpStream) -> TcpStream {
        let bytes = [self.head.as_bytes(), b"\r\n", &self.body].concat();
        stream.write_all(&bytes).unwrap();
        stream
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `bytes`, reads until the box closes, and takes the first answer apart.
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    let mut got = Vec::new();
    // A reset behind the answer is an end too; a timeout is not.
    if let Err(error) = stream.read_to_end(&mut got) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no end came");
    }
    Answer::parse(&got)
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts a problem document of that type.
    pub fn is_problem(&self, status: u16, slug: &str) {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:comptoir:{slug}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["instance"].as_str().unwrap().starts_with('/'));
    }
}
