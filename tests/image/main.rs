//! The booted ARM image in QEMU: what a shop would see, and what must survive a shop.
//!
//! `scripts/image` makes the image, `scripts/vm` the LAN around it; the cases run in the order of [`CASES`] and share
//! one box, since a boot costs half a minute here. Run them by `scripts/test image`, or one by
//! `cargo test --test image -- --ignored NAME`.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper's panic is the test's report"
)]

mod bundles;
mod cases;
mod harness;
mod http;
mod load;
mod platform;
mod shell;
mod vm;
mod world;

use std::process::ExitCode;

use harness::{Case, case};

/// Gentle ones first: a case may leave the box restarted, on the other slot, but serving.
const CASES: &[Case] = &[
    case!(cases::system::root_is_read_only_and_verified),
    case!(cases::system::no_unit_has_failed),
    case!(cases::system::nothing_listens_outside_the_contract),
    case!(cases::system::no_console_offers_a_login),
    case!(cases::system::data_fills_the_disk_and_root_owns_nothing_running),
    case!(cases::serving::every_port_answers_and_support_is_closed),
    case!(cases::serving::discovery_answers_with_no_more_than_it_was_asked),
    case!(cases::serving::catalogue_is_there_after_a_pull),
    case!(cases::serving::box_serves_with_the_network_cut),
    case!(cases::clock::a_wrong_clock_chip_is_overruled_by_the_platforms_word),
    case!(cases::faults::killed_server_comes_back_and_no_connection_is_refused),
    case!(cases::faults::hung_server_comes_back_and_no_connection_is_refused),
    case!(cases::faults::every_acknowledged_order_survives_a_power_cut),
    case!(cases::faults::damaged_data_partition_is_repaired_or_made_anew),
    case!(cases::rollout::ordered_version_is_fetched_tried_kept_and_told),
    case!(
        cases::rollout::ordered_version_that_does_not_work_is_rolled_back_and_told_with_its_reason
    ),
];

fn main() -> ExitCode {
    harness::run(CASES)
}
