//! The control port: how a test or a curious person looks at the device and makes it misbehave.
//!
//! | request | does |
//! |---|---|
//! | `GET /` | tells what the device is and did |
//! | `PUT /faults` | replaces the faults named in the JSON body |
//! | `POST /forget` | loses the memory of commands |
//! | `POST /heartbeat` | beats at once |
//! | `POST /hang-up` | closes the session |

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::device::Device;
use crate::http::{read_body, read_head};

const DEADLINE: Duration = Duration::from_secs(5);

/// Starts the thread; gives the address really bound.
pub fn serve(device: &Arc<Device>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} for control"))?;
    let address = listener.local_addr()?;
    let device = Arc::clone(device);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(&device, &stream) {
                eprintln!("device-emulator: control: {error:#}");
            }
        }
    });
    Ok(address)
}

fn answer(device: &Device, stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream);
    let (first, length) = read_head(&mut reader)?;
    let body = read_body(&mut reader, length.unwrap_or(0))?;
    let mut words = first.split(' ');
    let request = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (status, answer) = match act(device, request, &body) {
        Ok(Some(answer)) => ("200 OK", answer),
        Ok(None) => ("404 Not Found", json!({"error": "no such resource"})),
        Err(error) => ("400 Bad Request", json!({"error": format!("{error:#}")})),
    };
    let answer = format!("{answer}\n");
    write!(
        &mut &*stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(())
}

fn act(device: &Device, request: (&str, &str), body: &[u8]) -> anyhow::Result<Option<Value>> {
    match request {
        ("GET", "/") => {}
        ("PUT", "/faults") => {
            let mut faults = device.faults();
            *faults = faults.patched(serde_json::from_slice(body)?)?;
        }
        ("POST", "/forget") => device.forget()?,
        ("POST", "/heartbeat") => device.beat(),
        ("POST", "/hang-up") => device.hang_up(),
        _ => return Ok(None),
    }
    Ok(Some(device.report()))
}
