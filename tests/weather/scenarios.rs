//! The weather map.

use crate::runner::{Case, case};
use crate::world::{World, lasts, minutes};

/// How many requests a storm hits: more than there are while it lasts.
const STORM: u32 = 1_000_000;

pub const CASES: &[Case] = &[
    Case {
        name: "fair_weather",
        run: |name| case(name, World::direct, |_| lasts(minutes(10))),
    },
    Case {
        name: "offline_5_of_10_minutes_5_times",
        run: |name| case(name, World::direct, |world| comes_and_goes(world, 5, 5)),
    },
    Case {
        name: "offline_10_of_20_minutes_3_times",
        run: |name| case(name, World::direct, |world| comes_and_goes(world, 10, 3)),
    },
    Case {
        name: "offline_30_of_60_minutes_2_times",
        run: |name| case(name, World::direct, |world| comes_and_goes(world, 30, 2)),
    },
    Case {
        name: "offline_72_hours_with_two_power_cuts",
        run: |name| case(name, World::direct, long_offline),
    },
    Case {
        name: "thirty_percent_loss",
        run: |name| case(name, World::direct, loss),
    },
    Case {
        name: "storm_of_503",
        run: |name| case(name, World::direct, |world| storm(world, "status:503")),
    },
    Case {
        name: "storm_of_429",
        run: |name| case(name, World::direct, |world| storm(world, "status:429")),
    },
    Case {
        name: "storm_of_500",
        run: |name| case(name, World::direct, |world| storm(world, "status:500")),
    },
    Case {
        name: "answers_are_lost",
        run: |name| {
            case(name, World::direct, |world| {
                every_other(world, "lose_answer")
            })
        },
    },
    Case {
        name: "answers_are_lost_and_the_power_fails",
        run: |name| case(name, World::direct, lost_answers_and_power),
    },
    Case {
        name: "reset_before_the_handshake",
        run: |name| case(name, World::direct, |world| every_other(world, "refuse")),
    },
    Case {
        name: "requests_are_never_answered",
        run: |name| case(name, World::direct, |world| every_other(world, "stall")),
    },
    Case {
        name: "bodies_stand_still",
        run: |name| {
            case(name, World::direct, |world| {
                every_other(world, "stall_after_bytes:20")
            })
        },
    },
    Case {
        name: "bodies_are_truncated",
        run: |name| {
            case(name, World::direct, |world| {
                every_other(world, "truncate_after_bytes:20")
            })
        },
    },
    Case {
        name: "bodies_trickle",
        run: |name| case(name, World::direct, |world| every_other(world, "slow:2000")),
    },
    Case {
        name: "storm_of_407",
        run: |name| case(name, World::proxied, storm_of_407),
    },
    Case {
        name: "proxy_restarts_5_times",
        run: |name| case(name, World::proxied, proxy_restarts),
    },
    Case {
        name: "feed_is_forgotten_while_offline",
        run: |name| case(name, World::direct, forgotten_feed),
    },
    Case {
        name: "locks_are_lost",
        run: |name| case(name, World::direct, lost_locks),
    },
    Case {
        name: "platform_clock_jumps",
        run: |name| case(name, World::direct, clock_jumps),
    },
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

/// Squalls: a handful of requests of each host go wrong, again and again.
fn every_other(world: &mut World, fault: &str) {
    for _ in 0..10 {
        for flow in ["api", "bus", "blob"] {
            world.platform.arm(fault, flow, 2, None, "");
        }
        lasts(minutes(3));
    }
    world.platform.disarm();
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
fn clock_jumps(world: &mut World) {
    for offset_s in [86_400, -86_400, 400 * 86_400, 0] {
        world.platform.set_clock(offset_s);
        lasts(minutes(6));
    }
}
