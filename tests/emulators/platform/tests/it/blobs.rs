//! Reading blobs in parts and under conditions.

use ureq::http::Request;

use crate::emulator::{Answer, Emulator};

fn read(emulator: &Emulator, method: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}/media/a%20b/x.bin", emulator.url("blob")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    emulator.send(request.body(String::new()).unwrap()).unwrap()
}

#[test]
fn blob_is_read_whole_in_parts_and_under_conditions() {
    let emulator = Emulator::start(&[]);
    assert_eq!(
        read(&emulator, "GET", &[]).header("x-ms-error-code"),
        "BlobNotFound"
    );
    let media = emulator.control("PUT", "/blobs/media/a%20b/x.bin?document=1", "0123456789");
    assert!(
        media["url"]
            .as_str()
            .unwrap()
            .ends_with("/media/a%20b/x.bin"),
        "{media}"
    );
    let id = media["sha256"].as_str().unwrap();
    assert_eq!(
        emulator.control("GET", &format!("/documents/media/{id}"), "")["data"],
        media
    );

    let whole = read(&emulator, "GET", &[]);
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    let etag = whole.header("etag").to_owned();
    let head = read(&emulator, "HEAD", &[]);
    assert_eq!(
        (
            head.status,
            head.header("content-length"),
            head.body.as_str()
        ),
        (200, "10", "")
    );

    let part = read(
        &emulator,
        "GET",
        &[("Range", "bytes=7-"), ("If-Match", &etag)],
    );
    assert_eq!(
        (
            part.status,
            part.body.as_str(),
            part.header("content-range")
        ),
        (206, "789", "bytes 7-9/10")
    );
    let part = read(
        &emulator,
        "GET",
        &[("Range", "bytes=0-0"), ("x-ms-range", "bytes=2-3")],
    );
    assert_eq!((part.status, part.body.as_str()), (206, "23"));
    let beyond = read(&emulator, "GET", &[("Range", "bytes=10-")]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, "bytes */10")
    );

    assert_eq!(
        read(&emulator, "GET", &[("If-None-Match", &etag)]).status,
        304
    );
    emulator.control("PUT", "/blobs/media/a%20b/x.bin", "other bytes");
    let changed = read(
        &emulator,
        "GET",
        &[("Range", "bytes=7-"), ("If-Match", &etag)],
    );
    assert_eq!(
        (changed.status, changed.header("x-ms-error-code")),
        (412, "ConditionNotMet")
    );
}
