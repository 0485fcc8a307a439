//! Lines that break: reset or closed in the handshake, before the answer and in it, altered on the way. Directly, so that a
//! reset comes as one; a proxy makes a farewell of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use comptoir::units::ByteSize;
use rustls::ServerConnection;
use rustls::version::{TLS12, TLS13};

use super::super::tls_peer::{Authority, accept, config, leaf, read_head, reset, root};
use super::{Table, door_by, named};

/// The host as certificates name it: the line to it is direct.
const HERE: &str = "127.0.0.1";
/// More than an answer here has.
const MUCH: ByteSize = ByteSize::kib(64);

type Tls = rustls::StreamOwned<ServerConnection, TcpStream>;

/// What a host does with a connection.
#[derive(Clone, Copy)]
enum Act {
    /// Sends this share of its part of the handshake, in per cent, then does so.
    InHandshake(usize, fn(&TcpStream) -> io::Result<()>),
    /// Reads the request to its end, then does so.
    AfterRequest(fn(&mut Tls) -> io::Result<()>),
}

fn serve(act: Act, connection: ServerConnection, mut tcp: TcpStream) -> io::Result<()> {
    match act {
        Act::InHandshake(per_cent, then) => {
            let mut connection = connection;
            while !connection.wants_write() {
                connection.read_tls(&mut tcp)?;
                connection.process_new_packets().map_err(io::Error::other)?;
            }
            let mut flight = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut flight)?;
            }
            tcp.write_all(&flight[..flight.len() * per_cent / 100])?;
            then(&tcp)
        }
        Act::AfterRequest(then) => {
            let mut tls = Tls::new(connection, tcp);
            read_head(&mut tls)?;
            then(&mut tls)
        }
    }
}

/// A whole answer's status, or the code of what went wrong; its body is read, too.
fn outcome(
    root: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    act: Act,
) -> String {
    let identity = leaf(root, &[], named(&[HERE]));
    let config = config(identity, &[version], &[]);
    let address = accept(move |tcp| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        serve(act, connection, tcp)
    });
    let answer = door_by(&root.pem(), &address.to_string(), "").ask();
    let read = answer.and_then(|answer| {
        let status = answer.status();
        answer.bytes(MUCH).map(|_| status)
    });
    read.map_or_else(
        |error| error.cause.as_str().to_owned(),
        |status| status.to_string(),
    )
}

fn say(tls: &mut Tls, text: &str) -> io::Result<()> {
    tls.write_all(text.as_bytes())?;
    tls.flush()
}

/// Ends TCP without TLS's farewell, as somebody does who cuts an answer short.
fn hang_up(tls: &mut Tls) -> io::Result<()> {
    tls.sock.shutdown(Shutdown::Write)?;
    // The other side's end, so that this one's is no reset.
    let _ = tls.sock.read(&mut [0]);
    Ok(())
}

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf";

#[test]
fn a_line_that_breaks_is_told_by_where_it_breaks_and_no_cut_answer_passes_for_a_whole_one() {
    let root = root(|_| {});
    let mut table = Table::trusting(root.pem());
    let (cut, lost) = ("tls_cut", "connection_lost");
    let rows: &[(&str, &str, Act)] = &[
        (
            cut,
            "reset after the first word",
            Act::InHandshake(0, reset),
        ),
        (
            cut,
            "reset in the middle of the handshake",
            Act::InHandshake(50, reset),
        ),
        (
            cut,
            "end in the middle of the handshake",
            Act::InHandshake(50, |_| Ok(())),
        ),
        (
            lost,
            "reset before the answer",
            Act::AfterRequest(|tls| reset(&tls.sock)),
        ),
        (
            lost,
            "reset in the answer's head",
            Act::AfterRequest(|tls| {
                say(tls, "HTTP/1.1 200 OK\r\nContent-Le")?;
                reset(&tls.sock)
            }),
        ),
        (
            lost,
            "reset in the answer's body",
            Act::AfterRequest(|tls| {
                say(tls, HALF)?;
                reset(&tls.sock)
            }),
        ),
        (lost, "end before the answer", Act::AfterRequest(hang_up)),
        (
            lost,
            "end in the answer's body",
            Act::AfterRequest(|tls| {
                say(tls, HALF)?;
                hang_up(tls)
            }),
        ),
        (
            lost,
            "reset in an answer without length",
            Act::AfterRequest(|tls| {
                say(tls, ENDLESS)?;
                reset(&tls.sock)
            }),
        ),
        (
            lost,
            "end of an answer without length, without a farewell",
            Act::AfterRequest(|tls| {
                say(tls, ENDLESS)?;
                hang_up(tls)
            }),
        ),
        (
            "200",
            "end of an answer without length, with a farewell",
            Act::AfterRequest(|tls| {
                say(tls, ENDLESS)?;
                tls.conn.send_close_notify();
                tls.flush()
            }),
        ),
        (
            "tls_other",
            "an answer altered on its way",
            Act::AfterRequest(|tls| {
                tls.conn.writer().write_all(HALF.as_bytes())?;
                let mut records = Vec::new();
                while tls.conn.wants_write() {
                    tls.conn.write_tls(&mut records)?;
                }
                *records.last_mut().expect("an answer has bytes") ^= 1;
                tls.sock.write_all(&records)?;
                hang_up(tls)
            }),
        ),
    ];
    for (expected, what, act) in rows {
        for version in [&TLS12, &TLS13] {
            let seen = outcome(&root, version, *act);
            table.compare(expected, &format!("{what} ({:?})", version.version), &seen);
        }
    }
    table.end();
}
