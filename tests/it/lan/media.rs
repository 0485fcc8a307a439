//! Port 8003.

use comptoir::config::LanPort;

use super::served::Served;

const PORT: LanPort = LanPort::Media;

#[test]
fn a_blob_comes_whole_in_part_and_as_a_head() {
    let served = Served::start();
    let content: Vec<u8> = (0..1_000_003_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let name = served.store_blob(&content);
    let document =
        format!(r#"{{"url":"u","sha256":"{name}","size":1,"content_type":"image/png"}}"#);
    served.publish(&[("media", &name, 1, Some(&document))]);
    let path = format!("/v1/media/{name}");

    let whole = served.get(PORT, &path);
    assert_eq!(whole.status, 200);
    assert!(whole.body == content);
    assert_eq!(whole.header("content-type"), Some("image/png"));
    assert_eq!(whole.header("content-length"), Some("1000003"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    let tag = format!("\"{name}\"");
    assert_eq!(whole.header("etag"), Some(tag.as_str()));

    let head = served.ask(PORT, "HEAD", &path).send();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("1000003"))
    );
    assert!(head.body.is_empty());

    for (range, at, length) in [
        ("bytes=0-0", 0, 1),
        ("bytes=131070-131075", 131_070, 6),
        ("bytes=900000-", 900_000, 100_003),
        ("bytes=-7", 999_996, 7),
    ] {
        let part = served.ask(PORT, "GET", &path).header("range", range).send();
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == content[at..at + length], "{range}");
        let expected = format!("bytes {at}-{}/1000003", at + length - 1);
        assert_eq!(part.header("content-range"), Some(expected.as_str()));
    }
    let outside = served
        .ask(PORT, "GET", &path)
        .header("range", "bytes=1000003-")
        .send();
    outside.is_problem(416, "range-not-satisfiable");
    assert_eq!(outside.header("content-range"), Some("bytes */1000003"));
    for ignored in ["bytes=0-1,3-4", "lines=1-2", "bytes=x"] {
        let answer = served
            .ask(PORT, "GET", &path)
            .header("range", ignored)
            .send();
        assert_eq!(
            (answer.status, answer.body.len()),
            (200, content.len()),
            "{ignored}"
        );
    }
    let if_range = |tag: &str| {
        let ask = served.ask(PORT, "GET", &path).header("range", "bytes=0-9");
        ask.header("if-range", tag).send().status
    };
    assert_eq!(if_range(&tag), 206);
    assert_eq!(if_range("\"other\""), 200);
    let known = served
        .ask(PORT, "GET", &path)
        .header("if-none-match", &tag)
        .send();
    assert_eq!(known.status, 304);
}

#[test]
fn what_is_not_there_or_no_digest_is_404_and_never_a_path() {
    let served = Served::start();
    for name in [
        "0".repeat(64).as_str(),
        "00",
        "..%2F..%2Forders.db",
        "%2Fetc%2Fpasswd",
        "ABCDEF",
    ] {
        served
            .get(PORT, &format!("/v1/media/{name}"))
            .is_problem(404, "not-found");
    }
}

#[test]
fn a_kind_that_runs_script_is_served_as_bytes() {
    let served = Served::start();
    let name = served.store_blob(b"<script>");
    let document =
        format!(r#"{{"url":"u","sha256":"{name}","size":8,"content_type":"text/html"}}"#);
    served.publish(&[("media", &name, 1, Some(&document))]);
    let answer = served.get(PORT, &format!("/v1/media/{name}"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    assert!(
        answer
            .header("content-security-policy")
            .unwrap()
            .contains("sandbox")
    );
}
