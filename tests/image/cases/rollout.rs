//! Roll-outs, all the way: the platform orders, the box fetches, installs, restarts, judges itself, and the platform is told
//! success only after the commit, or failure with its reason after a rollback.

use std::time::Duration;

use serde_json::Value;

use crate::bundles::{BROKEN_VERSION, GOOD_VERSION};
use crate::vm::{BOOT_WITHIN, LOOK_EVERY, eventually};
use crate::world::World;

/// Fetching a bundle of some 70 MB through the proxy and writing it to a slot, under emulation.
const RESTART_WITHIN: Duration = Duration::from_secs(480);
/// The gate's stability window and its questions.
const COMMIT_WITHIN: Duration = Duration::from_secs(180);
/// A trial whose server never starts must end by itself.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(240);
/// From the end of the trial to the platform's knowing.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

fn status(world: &mut World) -> Value {
    let text = world.comptoir("update status --json", Duration::from_secs(60));
    let json = &text[text.find('{').unwrap()..];
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn left(world: &mut World, slot: &str) -> String {
    world
        .shell
        .run(&format!("fw_printenv -n BOOT_{slot}_LEFT"))
        .ok()
}

/// The slot that runs, and the other one.
fn slots(world: &World) -> (String, &'static str) {
    let slot = world.boot_report["slot"].as_str().unwrap().to_owned();
    let other = if slot == "A" { "B" } else { "A" };
    (slot, other)
}

/// What the box said at the end, which it says once.
fn closing(rollout: &Value) -> Option<String> {
    let all = rollout["feedback"].as_array().unwrap();
    let mut closed = all
        .iter()
        .map(|said| &said["body"]["status"])
        .filter(|status| status["execution"] == "closed");
    let status = closed.next()?;
    assert!(closed.next().is_none(), "closed twice: {rollout}");
    let (finished, why) = (&status["result"]["finished"], &status["details"][0]);
    Some(format!("{}: {}", finished.as_str()?, why.as_str()?))
}

pub fn ordered_version_is_fetched_tried_kept_and_told(world: &mut World) {
    world.wait_until_ready();
    let (_, other) = slots(world);
    world.vm.look_from_here();
    let id = world
        .platform
        .order_rollout(GOOD_VERSION, &world.bundle(GOOD_VERSION));
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={other} trial=1 left=1"),
        RESTART_WITHIN,
    );
    assert_eq!(closing(&world.platform.rollout(id)), None);
    world.wait_for_boot();
    let said = eventually("the platform is told", COMMIT_WITHIN + TOLD_WITHIN, || {
        // In this order: a success that is told while the slot is not kept yet would be seen.
        let said = closing(&world.platform.rollout(id));
        let left = left(world, other);
        if said.is_some() {
            assert_eq!(left, "9", "told before the commit");
        }
        std::thread::sleep(LOOK_EVERY);
        said
    });
    assert_eq!(
        said,
        format!("success: version {GOOD_VERSION} runs and is kept")
    );
    let release = world.shell.run("cat /etc/os-release").ok();
    assert!(
        release.contains(&format!("IMAGE_VERSION={GOOD_VERSION}")),
        "{release}"
    );
    assert_eq!(world.shell.run("ls /data/comptoir/rollout").ok(), "");
    // Kept means: the next starts are not counted.
    world.vm.cut_power();
    world.vm.power_on();
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={other} trial=0 left=9"),
        BOOT_WITHIN,
    );
    world.wait_for_boot();
    let status = status(world);
    assert_eq!(status["slot"], other, "{status}");
    assert_eq!(status["version"], GOOD_VERSION, "{status}");
    assert_eq!(status["in_trial"], false, "{status}");
    assert_eq!(status["failed"], serde_json::json!([]), "{status}");
    assert_eq!(status["rollout"]["last"]["success"], true, "{status}");
    assert!(closing(&world.platform.rollout(id)).is_some());
}

pub fn ordered_version_that_does_not_work_is_rolled_back_and_told_with_its_reason(
    world: &mut World,
) {
    world.wait_until_ready();
    let (slot, other) = slots(world);
    world.vm.look_from_here();
    let id = world
        .platform
        .order_rollout(BROKEN_VERSION, &world.bundle(BROKEN_VERSION));
    for left in ["1", "0"] {
        world.vm.wait_for(
            &format!("comptoir-uboot: slot={other} trial=1 left={left}"),
            RESTART_WITHIN,
        );
    }
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={slot} trial=0 left=9"),
        GIVE_UP_WITHIN,
    );
    assert_eq!(closing(&world.platform.rollout(id)), None);
    world.wait_for_boot();
    assert_eq!(left(world, other), "0");
    let said = eventually("the platform is told", TOLD_WITHIN, || {
        closing(&world.platform.rollout(id))
    });
    let status = status(world);
    assert_eq!(status["slot"], slot, "{status}");
    let failed = &status["failed"][0];
    assert_eq!(failed["version"], BROKEN_VERSION, "{status}");
    let reason = failed["reason"].as_str().unwrap();
    assert!(
        said.starts_with(&format!("failure: version {BROKEN_VERSION} was left"))
            && said.ends_with(reason),
        "{said}; {status}"
    );
}
