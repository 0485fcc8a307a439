//! The real binary, killed in the middle of a file.

use std::fs;

use comptoir::digest::Digest;
use serde_json::json;

use super::azurite::Container;
use super::kill::serve;
use super::media_line::{Bench, media_bytes};
use super::platform::{SITE, TOKEN, eventually};
use crate::loopback::own_address;

const MIB: u64 = 1 << 20;

#[test]
fn a_box_killed_in_mid_file_goes_on_with_what_was_on_the_disk() {
    let bench = Bench::new(Container::public());
    let bytes = media_bytes(1, 24 * MIB);
    let digest = Digest::of(&bytes).to_string();
    bench.container.put("film.mp4", &bytes);
    bench.announce("film.mp4", &bytes, json!({}));
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let site_file = dir.path().join("site.toml");
    let text = format!(
        "[site]\nsite_id = \"{SITE}\"\nclaim_code = \"12345678\"\n\
         [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\n\
         retry_first_ms = 100\nretry_max_s = 1\n\
         [wan.pull]\nwait_s = 1\n[wan.trust]\nca_files = [\"{}\", \"{}\"]\n\
         [lan]\nbind = \"{}\"\nport_offset = 3100\n\
         [discovery]\nenabled = false\n\
         [store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
        bench.platform.text("api_url"),
        bench.platform.text("bus_url"),
        bench.line.url(),
        bench.platform.ca_file().display(),
        bench.container.ca_file().display(),
        own_address(),
        data_dir.display(),
    );
    fs::write(&site_file, text).unwrap();
    bench.line.set_rate(4 * MIB);
    let record = data_dir.join(format!("blobs/partial/{digest}.json"));
    let server = serve(&site_file);
    eventually("a good part is on the disk", || {
        (record.is_file() && bench.line.down() > 10 * MIB).then_some(())
    });
    drop(server);
    let came = bench.line.down();
    bench.line.set_rate(0);
    let server = serve(&site_file);
    let blob = data_dir.join(format!("blobs/{}/{digest}", &digest[..2]));
    eventually("the film is here, and its record gone", || {
        (blob.is_file() && !record.exists()).then_some(())
    });
    drop(server);
    assert_eq!(Digest::of(&fs::read(blob).unwrap()), Digest::of(&bytes));
    let again = bench.line.down() - came;
    assert!(
        again < 24 * MIB - 8 * MIB + MIB,
        "{came} had come, and {again} more: what was fsynced is not fetched again"
    );
}
