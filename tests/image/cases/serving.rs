//! What devices see: ports, discovery, catalogue, and the same with the platform gone.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

use crate::http::{self, NoAnswer};
use crate::vm::eventually;
use crate::world::{PRODUCTS, World, barcode};

/// A first pull of the test's products through the proxy, with everything emulated.
const PULL_WITHIN: Duration = Duration::from_secs(120);

/// docs/device-protocol.md: a question is exactly this long, so that no answer is longer.
const QUESTION_BYTES: usize = 256;

pub fn every_port_answers_and_support_is_closed(world: &mut World) {
    world.wait_until_ready();
    // Off port 80, this question belongs to port 80: the answer says so, and that the port is alive.
    for port in [8000, 8001, 8002, 8003, 8004] {
        let answer = http::get(&world.url(port, "/readyz"), None).unwrap();
        assert_eq!(answer.status, 421, "port {port}: {answer:?}");
    }
    let who = http::get(&world.url(80, "/.well-known/comptoir"), None).unwrap();
    assert_eq!(who.status, 200, "{who:?}");
    let support = http::get(&world.url(8005, "/metrics"), None);
    assert!(matches!(support, Err(NoAnswer::Refused)), "{support:?}");
}

pub fn discovery_answers_with_no_more_than_it_was_asked(world: &mut World) {
    world.wait_until_ready();
    let socket = UdpSocket::bind((world.vm.address(254).as_str(), 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut question = vec![0; QUESTION_BYTES];
    question[..6].copy_from_slice(b"CMPT\x01\x01");
    question[6..22].copy_from_slice(b"nonce-of-a-test!");
    let address = (world.vm.address(2), 57854);
    let answer = eventually(
        "the box answers WHO_IS_BOX",
        Duration::from_secs(30),
        || {
            socket
                .send_to(&question, (address.0.as_str(), address.1))
                .unwrap();
            let mut answer = [0; 2048];
            let length = socket.recv(&mut answer).ok()?;
            Some(answer[..length].to_vec())
        },
    );
    assert_eq!(&answer[..6], b"CMPT\x01\x02");
    assert_eq!(&answer[6..22], b"nonce-of-a-test!");
    assert!(answer.len() <= QUESTION_BYTES, "{} bytes", answer.len());
}

/// Waits until all products are there, the way a device would look.
fn wait_for_catalogue(world: &mut World) {
    let last = format!("/v1/documents/products/p{}", PRODUCTS - 1);
    eventually("the catalogue is in", PULL_WITHIN, || {
        (world.get(8000, &last).status == 200).then_some(())
    });
}

pub fn catalogue_is_there_after_a_pull(world: &mut World) {
    wait_for_catalogue(world);
    let number = PRODUCTS / 2;
    let found = world.get(8000, &format!("/v1/barcodes/{}", barcode(number)));
    assert_eq!(found.status, 200, "{found:?}");
    assert!(
        found.body.contains(&format!("\"Product {number}\"")),
        "{found:?}"
    );
}

pub fn box_serves_with_the_network_cut(world: &mut World) {
    wait_for_catalogue(world);
    world.platform.stop();
    world.vm.verb("proxy-stop", &[]);
    let token = world.token();
    for number in 0..20 {
        let found = world.get(8000, &format!("/v1/documents/products/p{number}"));
        assert_eq!(found.status, 200, "{found:?}");
        let id = format!("offline-{number}");
        let order = json!({"order_id": id, "placed_at": "2026-01-01T12:00:00Z", "lines": [{"product": "p1", "quantity": 2}]});
        let taken = http::post(
            &world.url(8001, "/v1/orders"),
            Some(&token),
            Some(&id),
            &order,
        )
        .unwrap();
        assert_eq!(taken.status, 201, "{taken:?}");
    }
    assert_eq!(
        http::get(&world.url(80, "/readyz"), None).unwrap().status,
        200
    );
    world.vm.verb("proxy", &[]);
    world.platform.start_again();
}
