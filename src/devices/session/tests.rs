//! A device played by hand at the other end of a pipe; time stands still unless everybody waits.

use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;

const BOX_NONCE: [u8; 32] = [1; 32];
const BOOT_ID: [u8; 16] = [7; 16];
const ID: [u8; 16] = [9; 16];

fn key() -> CommandKey {
    CommandKey::new([5; 32])
}

/// The device's end of a pipe.
struct Device {
    pipe: DuplexStream,
    sealer: Sealer,
    opener: Opener,
}

impl Device {
    async fn read_raw(pipe: &mut DuplexStream) -> Vec<u8> {
        let length = pipe.read_u32().await.unwrap();
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        pipe.read_exact(&mut frame).await.unwrap();
        frame
    }

    /// The device's side of the handshake, with a key of its own.
    async fn shake_hands(mut pipe: DuplexStream, key: &CommandKey, device_id: &str) -> Self {
        let frame = Self::read_raw(&mut pipe).await;
        let Message::BoxHello {
            box_id,
            nonce,
            now_ms,
        } = open_plain(&frame).unwrap()
        else {
            panic!("no BoxHello");
        };
        assert_eq!((box_id, now_ms), ("box-1", 1234));
        let nonces = Nonces {
            of_box: nonce,
            of_device: [2; 32],
        };
        let hello = Message::DeviceHello {
            device_id,
            boot_id: BOOT_ID,
            last_seq: 41,
            nonce: nonces.of_device,
            mac: key.device_proof(&nonces, device_id),
        };
        pipe.write_all(&seal_plain(&hello).unwrap()).await.unwrap();
        let session_key = key.session_key(&nonces);
        let mut device = Self {
            pipe,
            sealer: Sealer::new(session_key.clone(), Direction::ToBox),
            opener: Opener::new(session_key, Direction::ToDevice),
        };
        // A box that does not like what it heard closes without a proof.
        if let Ok(length) = device.pipe.read_u32().await {
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            device.pipe.read_exact(&mut frame).await.unwrap();
            let proof = key.box_proof(&nonces, "box-1");
            assert_eq!(
                open_plain(&frame).unwrap(),
                Message::BoxProof { mac: proof }
            );
        }
        device
    }

    async fn says(&mut self, message: &Message<'_>) {
        let frame = self.sealer.seal(message).unwrap();
        self.pipe.write_all(&frame).await.unwrap();
    }

    async fn hears(&mut self, expected: &Message<'_>) {
        let frame = Self::read_raw(&mut self.pipe).await;
        assert_eq!(self.opener.open(&frame).unwrap(), *expected);
    }
}

async fn meet(
    key_of_device: CommandKey,
    device_id: &'static str,
) -> (
    Result<(Session<DuplexStream>, Introduction), SessionError>,
    Device,
) {
    let (ours, theirs) = duplex(1 << 20);
    let device =
        tokio::spawn(async move { Device::shake_hands(theirs, &key_of_device, device_id).await });
    let parties = Parties {
        box_id: "box-1",
        device_id: "dev-1",
        key: &key(),
    };
    let met = Session::shake_hands(ours, &parties, BOX_NONCE, 1234).await;
    (met, device.await.unwrap())
}

async fn open_session() -> (Session<DuplexStream>, Device) {
    let (met, device) = meet(key(), "dev-1").await;
    let (session, introduction) = met.unwrap();
    assert_eq!(
        introduction,
        Introduction {
            boot_id: BOOT_ID,
            last_seq: 41
        }
    );
    (session, device)
}

fn later(after: Duration) -> Instant {
    Instant::now() + after
}

#[tokio::test(start_paused = true)]
async fn a_command_goes_out_and_its_answers_come_in() {
    let (mut session, mut device) = open_session().await;
    let command = Message::Command {
        id: ID,
        seq: 42,
        issued_at_ms: 1,
        expires_at_ms: 2,
        possible_duplicate: false,
        kind: "order",
        body: b"{}",
    };
    session.send(&command).await.unwrap();
    device.hears(&command).await;
    device.says(&Message::Accepted { id: ID }).await;
    device
        .says(&Message::Done {
            id: ID,
            outcome: Outcome::Ok,
            detail: "fait",
        })
        .await;
    let until = later(Duration::from_secs(1));
    assert_eq!(
        session.receive(until).await.unwrap(),
        Some(Said::Accepted { id: ID })
    );
    assert_eq!(
        session.receive(until).await.unwrap(),
        Some(Said::Done {
            id: ID,
            outcome: Outcome::Ok,
            detail: "fait".into()
        })
    );
    assert_eq!(session.receive(until).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_device_with_the_wrong_key_gets_no_proof_and_no_session() {
    let (met, _) = meet(CommandKey::new([6; 32]), "dev-1").await;
    assert!(matches!(met, Err(SessionError::BadProof)), "{met:?}");
}

#[tokio::test(start_paused = true)]
async fn another_device_at_the_address_gets_no_session() {
    let (met, _) = meet(key(), "dev-2").await;
    assert!(matches!(met, Err(SessionError::OtherDevice)), "{met:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_says_nothing_or_too_much_is_left() {
    let parties = Parties {
        box_id: "box-1",
        device_id: "dev-1",
        key: &key(),
    };
    let (ours, _silent) = duplex(4096);
    let met = Session::shake_hands(ours, &parties, BOX_NONCE, 0).await;
    assert!(matches!(met, Err(SessionError::Deadline { .. })), "{met:?}");

    let (ours, mut loud) = duplex(4096);
    loud.write_u32(1025).await.unwrap();
    let met = Session::shake_hands(ours, &parties, BOX_NONCE, 0).await;
    assert_eq!(met.unwrap_err().name(), "oversized");

    let (ours, mut polite) = duplex(4096);
    let bye = Message::Bye {
        reason: "not_paired\u{7}",
    };
    polite.write_all(&seal_plain(&bye).unwrap()).await.unwrap();
    match Session::shake_hands(ours, &parties, BOX_NONCE, 0).await {
        Err(SessionError::Bye { reason }) => assert_eq!(reason, "not_paired"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversized_a_forged_and_a_cut_frame_end_the_session_by_name() {
    let (mut session, mut device) = open_session().await;
    device.pipe.write_u32(262_145).await.unwrap();
    let error = session.receive(later(PING_AFTER)).await.unwrap_err();
    assert_eq!(error.name(), "oversized");

    let (mut session, mut device) = open_session().await;
    let mut frame = device.sealer.seal(&Message::Accepted { id: ID }).unwrap();
    *frame.last_mut().unwrap() ^= 1;
    device.pipe.write_all(&frame).await.unwrap();
    let error = session.receive(later(PING_AFTER)).await.unwrap_err();
    assert_eq!(error.name(), "bad_tag");

    let (mut session, mut device) = open_session().await;
    let frame = device.sealer.seal(&Message::Accepted { id: ID }).unwrap();
    device.pipe.write_all(&frame[..10]).await.unwrap();
    drop(device);
    let error = session.receive(later(PING_AFTER)).await.unwrap_err();
    assert_eq!(error.name(), "cut");

    let (mut session, device) = open_session().await;
    drop(device);
    let error = session.receive(later(PING_AFTER)).await.unwrap_err();
    assert!(matches!(error, SessionError::Closed), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_is_pinged_and_then_given_up() {
    let (mut session, mut device) = open_session().await;
    let start = Instant::now();
    let hour = later(Duration::from_secs(3600));
    let waiting = tokio::spawn(async move { session.receive(hour).await });
    device.hears(&Message::Ping { n: 1 }).await;
    assert_eq!(start.elapsed().as_secs(), PING_AFTER.as_secs());
    device.says(&Message::Pong { n: 1 }).await;
    device.hears(&Message::Ping { n: 2 }).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Deadline { .. }), "{error:?}");
    assert_eq!(
        start.elapsed().as_secs(),
        45,
        "15 + 15, and 15 without an answer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_device_is_answered_while_waiting() {
    let (mut session, mut device) = open_session().await;
    device.says(&Message::Ping { n: 77 }).await;
    let said = session
        .receive(later(Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(said, None);
    device.hears(&Message::Pong { n: 77 }).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_the_device_said_is_lost_when_waiting_is_given_up() {
    let (mut session, mut device) = open_session().await;
    let frame = device.sealer.seal(&Message::Accepted { id: ID }).unwrap();
    let (first, rest) = frame.split_at(7);
    device.pipe.write_all(first).await.unwrap();
    let said = session
        .receive(later(Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(said, None, "half a frame is no message");
    device.pipe.write_all(rest).await.unwrap();
    let said = session
        .receive(later(Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(said, Some(Said::Accepted { id: ID }));
}

#[tokio::test(start_paused = true)]
async fn a_frame_the_box_began_to_write_arrives_whole_when_writing_is_given_up() {
    let (mut session, mut device) = open_session().await;
    let body = vec![3; 200_000];
    let command = Message::Command {
        id: ID,
        seq: 1,
        issued_at_ms: 1,
        expires_at_ms: 2,
        possible_duplicate: false,
        kind: "order",
        body: &body,
    };
    // Six of them are more than the pipe holds.
    for _ in 0..5 {
        session.send(&command).await.unwrap();
    }
    let given_up = timeout(Duration::from_secs(1), session.send(&command)).await;
    assert!(given_up.is_err(), "the pipe is full");
    let hearing = tokio::spawn(async move {
        for _ in 0..6 {
            let frame = Device::read_raw(&mut device.pipe).await;
            assert!(device.opener.open(&frame).is_ok());
        }
    });
    let said = session.receive(later(Duration::from_secs(1))).await;
    hearing.await.unwrap();
    assert!(said.is_err(), "the device left");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_takes_no_bytes_ends_the_session() {
    let (mut session, _device) = open_session().await;
    let body = vec![3; 261_000];
    let command = Message::Command {
        id: ID,
        seq: 1,
        issued_at_ms: 1,
        expires_at_ms: 2,
        possible_duplicate: false,
        kind: "order",
        body: &body,
    };
    let mut sent = Ok(());
    for _ in 0..6 {
        sent = sent.and(session.send(&command).await);
    }
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("writing a frame"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_trickles_ends_the_session() {
    let (mut session, mut device) = open_session().await;
    device.pipe.write_all(&[0, 0, 1]).await.unwrap();
    let error = session
        .receive(later(Duration::from_secs(3600)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("rest of a frame"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_message_in_a_session_is_out_of_place() {
    let (mut session, mut device) = open_session().await;
    device.says(&Message::BoxProof { mac: [0; 32] }).await;
    let error = session.receive(later(PING_AFTER)).await.unwrap_err();
    assert!(
        matches!(error, SessionError::OutOfPlace { .. }),
        "{error:?}"
    );
}
