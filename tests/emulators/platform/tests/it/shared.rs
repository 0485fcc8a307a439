//! One address for all three flows, as in the image tests.

use ureq::http::Request;

use crate::emulator::Emulator;

fn ask(emulator: &Emulator, host: &str, path: &str) -> u16 {
    let url = format!("https://{}{path}", emulator.ready["api"].as_str().unwrap());
    let request = Request::get(url)
        .header("Host", host)
        .body(String::new())
        .unwrap();
    emulator.send(request).unwrap().status
}

#[test]
fn host_name_tells_the_flow() {
    let emulator = Emulator::start(&["--listen", "127.0.0.1:0"]);
    assert_eq!(emulator.ready["api"], emulator.ready["bus"]);
    emulator.control("PUT", "/blobs/media/x", "bytes");
    assert_eq!(
        ask(&emulator, "API.server.commerce-hub.io", "/v1/sites/s1/feed"),
        401
    );
    assert_eq!(
        ask(
            &emulator,
            "simplementedata.blob.core.windows.net:443",
            "/media/x"
        ),
        200
    );
    for bus in [
        "e-serversync-ns.servicebus.windows.net",
        "koostodesapp-ns.servicebus.windows.net",
    ] {
        assert_eq!(ask(&emulator, bus, "/media/x"), 401);
    }
    assert_eq!(ask(&emulator, "elsewhere.test", "/media/x"), 421);
}
