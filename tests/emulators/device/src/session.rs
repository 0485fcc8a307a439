//! One connection of the box: handshake, then frames until one side hangs up.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::device::{Device, Verdict, lock, random};
use crate::faults::strike;
use crate::wire::{
    self, Command, FRAME_LIMIT, FromBox, HANDSHAKE_LIMIT, ToBox, open_plain, open_sealed,
    read_frame, sealed, write_frame,
};

/// For the three frames of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Without a word from the box for so long, the session is over.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// For one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Connections in the handshake at a time; more are closed.
const STRANGERS_LIMIT: usize = 4;

static STRANGERS: AtomicUsize = AtomicUsize::new(0);

/// The sending half of a session that is through its handshake.
pub struct Link {
    stream: TcpStream,
    key: [u8; 32],
    /// The stream and this move together: a frame is numbered in the order it is written.
    counter: Mutex<u64>,
}

impl Link {
    /// Sends a message, unless the device is mute.
    pub fn send(&self, device: &Device, message: &ToBox) -> anyhow::Result<()> {
        if device.faults().mute {
            return Ok(());
        }
        let mut counter = lock(&self.counter);
        let frame = sealed(message, &self.key, *counter);
        *counter += 1;
        write_frame(&mut &self.stream, &frame)?;
        Ok(())
    }

    /// Hangs up.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn send_raw(&self, content: &[u8]) -> anyhow::Result<()> {
        write_frame(&mut &self.stream, content)?;
        Ok(())
    }
}

/// Serves one connection to its end.
pub fn serve(device: &Device, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_DEADLINE))?;
    stream.set_read_timeout(Some(HANDSHAKE_DEADLINE))?;
    let strangers = STRANGERS.fetch_add(1, Ordering::SeqCst);
    let result = if strangers < STRANGERS_LIMIT {
        shake_hands(device, &stream)
    } else {
        Err(anyhow::anyhow!("too many connections in the handshake"))
    };
    STRANGERS.fetch_sub(1, Ordering::SeqCst);
    let key = result?;

    stream.set_read_timeout(Some(IDLE_DEADLINE))?;
    let link = Arc::new(Link {
        stream: stream.try_clone()?,
        key,
        counter: Mutex::new(0),
    });
    device.take_over(Arc::clone(&link));
    let result = read_on(device, &link, &stream);
    device.leave(&link);
    link.close();
    result
}

fn shake_hands(device: &Device, mut stream: &TcpStream) -> anyhow::Result<[u8; 32]> {
    let pairing = device.pairing();
    let frame = read_frame(&mut stream, HANDSHAKE_LIMIT)?.context("closed before BoxHello")?;
    let FromBox::Hello {
        box_id,
        nonce: box_nonce,
        now_ms,
    } = open_plain(&frame)?
    else {
        bail!("expected BoxHello");
    };
    if box_id != pairing.box_id {
        write_frame(&mut stream, &wire::plain(&ToBox::Bye("not_paired")))?;
        bail!("BoxHello of {box_id}, paired with {}", pairing.box_id);
    }
    if device.faults().mute {
        // Keeps the connection, says nothing: the box's own deadline has to end it.
        let _ = read_frame(&mut stream, HANDSHAKE_LIMIT);
        bail!("mute");
    }
    let mut key = pairing.command_key;
    key[0] ^= u8::from(device.faults().wrong_key);
    let nonce: [u8; 32] = random()?;
    let mac = wire::hmac(
        &key,
        &[
            b"comptoir-device-1",
            &box_nonce,
            &nonce,
            pairing.device_id.as_bytes(),
        ],
    );
    let hello = ToBox::Hello {
        device_id: pairing.device_id.clone(),
        boot_id: device.boot_id(),
        last_seq: device.last_seq(),
        nonce,
        mac,
    };
    write_frame(&mut stream, &wire::plain(&hello))?;

    let frame = read_frame(&mut stream, HANDSHAKE_LIMIT)?.context("closed before BoxProof")?;
    let expected = wire::hmac(
        &key,
        &[b"comptoir-box-1", &nonce, &box_nonce, box_id.as_bytes()],
    );
    match open_plain(&frame)? {
        FromBox::Proof { mac } => ensure!(mac == expected, "the box's proof is wrong"),
        other => bail!("expected BoxProof, got {other:?}"),
    }
    device.hear_time(now_ms);
    Ok(wire::hmac(
        &key,
        &[b"comptoir-session-1", &box_nonce, &nonce],
    ))
}

fn read_on(device: &Device, link: &Link, mut stream: &TcpStream) -> anyhow::Result<()> {
    let mut counter = 0;
    while let Some(frame) = read_frame(&mut stream, FRAME_LIMIT)? {
        let message = open_sealed(&frame, &link.key, counter)?;
        counter += 1;
        match message {
            FromBox::Command(command) => take(device, link, command)?,
            FromBox::Ping(n) => link.send(device, &ToBox::Pong(n))?,
            FromBox::Pong(_) => {}
            FromBox::Bye(_) => return Ok(()),
            FromBox::Hello { .. } | FromBox::Proof { .. } => bail!("handshake inside a session"),
        }
    }
    Ok(())
}

fn take(device: &Device, link: &Link, command: Command) -> anyhow::Result<()> {
    let (drop_it, oversized, bad_tag) = {
        let mut faults = device.faults();
        if faults.mute {
            return Ok(());
        }
        (
            strike(&mut faults.drop_before_accept),
            strike(&mut faults.oversized_frame),
            strike(&mut faults.bad_tag),
        )
    };
    if drop_it {
        bail!("dropped before accept, on demand");
    }
    if oversized {
        return link.send_raw(&vec![0; FRAME_LIMIT + 1]);
    }
    if bad_tag {
        return link.send_raw(&sealed(&ToBox::Accepted(command.id), &[0; 32], 0));
    }
    let id = command.id;
    let verdict = device.take(command)?;
    if strike(&mut device.faults().lose_accept) {
        bail!("accept lost, on demand");
    }
    match verdict {
        Verdict::Accepted => link.send(device, &ToBox::Accepted(id)),
        Verdict::Done(outcome, detail) => link.send(
            device,
            &ToBox::Done {
                id,
                outcome,
                detail,
            },
        ),
    }
}
