//! The weather map.

use std::sync::Arc;
use std::time::Duration;

use crate::catch_up::{crumbs_are_caught, within_twice_the_ideal};
use crate::runner::{Case, direct, enrolled, in_crumbs, proxied};
use crate::world::{LIFE, World, lasts, minutes};

/// How many requests a storm hits: more than there are while it lasts.
const STORM: u32 = 1_000_000;

pub const CASES: &[Case] = &[
    direct("fair_weather", |_| lasts(minutes(10))),
    // One waits out a refusal of the bus, one the life of credentials: begun early, they hold up nothing.
    direct("platform_clock_jumps", platform_clock_jumps),
    enrolled("signature_ends_in_mid_file", signature_ends_in_mid_file),
    direct("offline_5_of_10_minutes_5_times", |w| {
        comes_and_goes(w, 5, 5)
    }),
    direct("offline_10_of_20_minutes_3_times", |w| {
        comes_and_goes(w, 10, 3)
    }),
    direct("offline_15_of_30_minutes_3_times", |w| {
        comes_and_goes(w, 15, 3)
    }),
    direct("offline_30_of_60_minutes_2_times", |w| {
        comes_and_goes(w, 30, 2)
    }),
    direct("offline_72_hours_with_two_power_cuts", long_offline),
    direct("thirty_percent_loss", loss),
    proxied("thirty_percent_loss_behind_the_proxy", loss),
    direct("storm_of_503", |w| storm(w, "status:503")),
    direct("storm_of_429", |w| storm(w, "status:429")),
    direct("storm_of_500", |w| storm(w, "status:500")),
    direct("answers_are_lost", |w| squalls(w, "lose_answer")),
    direct(
        "answers_are_lost_and_the_power_fails",
        lost_answers_and_power,
    ),
    direct("reset_before_the_handshake", |w| squalls(w, "refuse")),
    direct("reset_in_the_handshake", reset_in_the_handshake),
    direct("requests_are_never_answered", |w| squalls(w, "stall")),
    direct("bodies_stand_still", |w| squalls(w, "stall_after_bytes:20")),
    direct("bodies_are_truncated", |w| {
        squalls(w, "truncate_after_bytes:20")
    }),
    direct("bodies_trickle", |w| squalls(w, "slow:2000")),
    proxied("storm_of_407", storm_of_407),
    proxied("proxy_restarts_5_times", proxy_restarts),
    direct("feed_is_forgotten_while_offline", forgotten_feed),
    direct("locks_are_lost", lost_locks),
    direct("box_clock_jumps", box_clock_jumps),
    direct("everything_at_once", everything_at_once),
    direct("catches_up_after_72_hours_offline", |w| {
        within_twice_the_ideal(w, long_away, is_back)
    }),
    direct("catches_up_after_a_storm_of_503", |w| {
        within_twice_the_ideal(w, storm_begins, storm_ends)
    }),
    proxied("catches_up_after_the_proxy_was_down", |w| {
        within_twice_the_ideal(w, proxy_goes, proxy_comes)
    }),
    in_crumbs("a_box_that_asks_in_crumbs_is_caught", |w| {
        crumbs_are_caught(w, storm_begins, storm_ends)
    }),
];

/// `down` minutes without the platform, `down` minutes with it, `times` times.
fn comes_and_goes(world: &mut World, down: u32, times: u32) {
    for _ in 0..times {
        world.platform.set_offline(true);
        lasts(minutes(down));
        world.platform.set_offline(false);
        lasts(minutes(down));
    }
}

fn long_offline(world: &mut World) {
    world.platform.set_offline(true);
    for _ in 0..2 {
        lasts(minutes(20));
        world.power_cut();
    }
    lasts(minutes(20));
    world.platform.set_offline(false);
}

fn loss(world: &mut World) {
    let loss = world.loses(30);
    lasts(minutes(60));
    drop(loss);
}

/// Nothing else comes from any host.
fn storm(world: &mut World, fault: &str) {
    for flow in ["api", "bus", "blob"] {
        world.platform.arm(fault, flow, STORM, None, "");
    }
    lasts(minutes(20));
    world.platform.disarm();
}

/// A handful of requests of each host go wrong, again and again.
fn squalls(world: &mut World, fault: &str) {
    for _ in 0..10 {
        for flow in ["api", "bus", "blob"] {
            world.platform.arm(fault, flow, 2, None, "");
        }
        lasts(minutes(3));
    }
    world.platform.disarm();
}

/// Connections are cut, and new ones are while they are being secured.
fn reset_in_the_handshake(world: &mut World) {
    for _ in 0..10 {
        for flow in ["api", "bus", "blob"] {
            world.platform.arm("refuse", flow, 1, None, "");
            world.platform.arm("reset_handshake", flow, 2, None, "");
        }
        lasts(minutes(3));
    }
    world.platform.disarm();
}

/// Of the film, and where it breaks.
const FILM_BYTES: usize = 600_000;
const BREAKS_AT: u64 = 200_000;
/// How long credentials are good that are handed out afterwards.
const A_WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A film breaks off; until the line is back its signature is over, and so is everything else that was handed out. The
/// platform can't hand out others before the old one was shown.
fn signature_ends_in_mid_file(world: &mut World) {
    let platform = Arc::clone(&world.platform);
    let bytes: Vec<u8> = (0..FILM_BYTES)
        .map(|at| u8::try_from((at * 29 + at / 239) % 256).unwrap())
        .collect();
    let breaks = format!("truncate_after_bytes:{BREAKS_AT}");
    platform.arm(&breaks, "blob", 1, None, "film");
    platform.arm("status:503", "blob", STORM, None, "film");
    let data = platform.put_blob("film.mp4", &bytes, true);
    let sha256 = data["sha256"].as_str().unwrap().to_owned();
    world.told.lock().unwrap().images.insert(sha256, bytes);
    world.until("the film breaks off", || {
        platform
            .blob_answers("film")
            .iter()
            .any(|(status, _)| *status == 503)
    });
    platform.set_offline(true);
    platform.disarm();
    platform.arm("status:503", "api", STORM, None, "/enrol");
    lasts(LIFE);
    platform.set_offline(false);
    world.until("the old signature is shown, and refused", || {
        platform
            .blob_answers("film")
            .iter()
            .any(|(status, _)| *status == 403)
    });
    let handed_out = platform.handed_out();
    platform.set_life(A_WEEK);
    platform.disarm();
    let answers = || {
        let answers = platform.blob_answers("film").into_iter();
        answers
            .filter(|(status, _)| matches!(status, 200 | 206))
            .collect::<Vec<_>>()
    };
    world.until("the film goes on", || answers().len() > 1);
    assert!(
        platform.handed_out() > handed_out,
        "another one was handed out"
    );
    let rest = FILM_BYTES as u64 - BREAKS_AT;
    assert_eq!(
        answers()[1..],
        [(206, rest)],
        "at the byte where it broke off"
    );
}

fn long_away(world: &mut World) {
    world.platform.set_offline(true);
    lasts(minutes(20));
    world.power_cut();
}

fn is_back(world: &mut World) {
    lasts(minutes(20));
    world.platform.set_offline(false);
}

fn storm_begins(world: &mut World) {
    for flow in ["api", "bus", "blob"] {
        world.platform.arm("status:503", flow, STORM, None, "");
    }
    // What the platform holds already gets its answer.
    lasts(minutes(15));
}

fn storm_ends(world: &mut World) {
    lasts(minutes(10));
    world.platform.disarm();
}

fn proxy_goes(world: &mut World) {
    world.proxy.as_mut().unwrap().stop();
}

fn proxy_comes(world: &mut World) {
    lasts(minutes(20));
    world
        .proxy
        .as_mut()
        .unwrap()
        .start_again(crate::proxy::PASSWORD);
}

fn lost_answers_and_power(world: &mut World) {
    for _ in 0..4 {
        for flow in ["api", "bus"] {
            world.platform.arm("lose_answer", flow, 3, None, "");
        }
        lasts(minutes(4));
        world.power_cut();
    }
    world.platform.disarm();
}

fn storm_of_407(world: &mut World) {
    let proxy = world.proxy.as_mut().unwrap();
    proxy.start_again("another");
    lasts(minutes(20));
    proxy.start_again(crate::proxy::PASSWORD);
}

fn proxy_restarts(world: &mut World) {
    for _ in 0..5 {
        let proxy = world.proxy.as_mut().unwrap();
        proxy.stop();
        lasts(minutes(2));
        proxy.start_again(crate::proxy::PASSWORD);
        lasts(minutes(4));
    }
}

/// Away so long that the platform no longer knows what changed since.
fn forgotten_feed(world: &mut World) {
    world.platform.set_offline(true);
    lasts(minutes(10));
    world.platform.forget_changes();
    world.platform.set_offline(false);
}

fn lost_locks(world: &mut World) {
    for _ in 0..40 {
        world.platform.drop_locks();
        lasts(minutes(1) / 2);
    }
}

/// The platform's clock, by which tokens are judged.
fn platform_clock_jumps(world: &mut World) {
    for offset_s in [86_400, -86_400, 400 * 86_400, 0] {
        world.platform.set_clock(offset_s);
        lasts(minutes(6));
    }
}

/// Packets lost, one kind of squall after the other, the platform away now and then, and a power cut in each.
fn everything_at_once(world: &mut World) {
    let loss = world.loses(10);
    for fault in [
        "lose_answer",
        "status:503",
        "truncate_after_bytes:100",
        "refuse",
    ] {
        for flow in ["api", "bus", "blob"] {
            world.platform.arm(fault, flow, 3, None, "");
        }
        lasts(minutes(5));
        world.power_cut();
        world.platform.set_offline(true);
        lasts(minutes(2));
        world.platform.set_offline(false);
        lasts(minutes(3));
        world.platform.disarm();
    }
    drop(loss);
}

/// The box's own clock: ahead, back, and as after a power cut on a box without a clock chip.
fn box_clock_jumps(world: &mut World) {
    world.server.wears_a_watch();
    world.power_cut();
    for clock in ["+2h", "-2h", "+40d", "@2026-01-01 00:00:00", "+0"] {
        world.server.set_clock(clock);
        lasts(minutes(6));
    }
    world.server.set_clock("@1970-01-01 00:00:30");
    world.power_cut();
    lasts(minutes(10));
    world.server.set_clock("+0");
}
