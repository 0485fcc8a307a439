//! Updates: a good one is kept, a broken one is left.

use std::time::Duration;

use serde_json::Value;

use crate::bundles::{BROKEN_VERSION, GOOD_VERSION};
use crate::vm::{BOOT_WITHIN, eventually};
use crate::world::World;

/// Writing two images of some 70 MB under emulation.
const INSTALL_WITHIN: Duration = Duration::from_secs(180);
/// The gate's stability window and its questions.
const COMMIT_WITHIN: Duration = Duration::from_secs(180);
/// A trial whose server never starts must end by itself.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(240);

fn status(world: &mut World) -> Value {
    let text = world.comptoir("update status --json", Duration::from_secs(60));
    let json = &text[text.find('{').unwrap()..];
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn install(world: &mut World, version: &str) {
    world.wait_until_ready();
    world
        .shell
        .run("mkdir -p /run/bundles && { grep -q ' /run/bundles ' /proc/mounts || mount -t vfat -o ro,umask=0222 /dev/sda /run/bundles; }")
        .ok();
    let said = world.comptoir(
        &format!("update install /run/bundles/comptoir-{version}.raucb"),
        INSTALL_WITHIN,
    );
    assert!(said.contains(version), "{said}");
    world.shell.run("umount /run/bundles").ok();
}

fn left(world: &mut World, slot: &str) -> String {
    world
        .shell
        .run(&format!("fw_printenv -n BOOT_{slot}_LEFT"))
        .ok()
}

pub fn good_update_is_tried_and_kept(world: &mut World) {
    install(world, GOOD_VERSION);
    world.vm.look_from_here();
    world.shell.start("systemctl reboot --force");
    world
        .vm
        .wait_for("comptoir-uboot: slot=B trial=1 left=1", BOOT_WITHIN);
    world.wait_for_boot();
    eventually("slot B is kept", COMMIT_WITHIN, || {
        (left(world, "B") == "9").then_some(())
    });
    let release = world.shell.run("cat /etc/os-release").ok();
    assert!(
        release.contains(&format!("IMAGE_VERSION={GOOD_VERSION}")),
        "{release}"
    );
    // Kept means: the next starts are not counted.
    world.vm.cut_power();
    world.vm.power_on();
    world
        .vm
        .wait_for("comptoir-uboot: slot=B trial=0 left=9", BOOT_WITHIN);
    world.wait_for_boot();
    let status = status(world);
    assert_eq!(status["slot"], "B", "{status}");
    assert_eq!(status["version"], GOOD_VERSION, "{status}");
    assert_eq!(status["in_trial"], false, "{status}");
    assert_eq!(status["failed"], serde_json::json!([]), "{status}");
}

pub fn broken_update_is_rolled_back(world: &mut World) {
    let slot = world.boot_report["slot"].as_str().unwrap().to_owned();
    let other = if slot == "A" { "B" } else { "A" };
    install(world, BROKEN_VERSION);
    world.vm.look_from_here();
    world.shell.start("systemctl reboot --force");
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={other} trial=1 left=1"),
        BOOT_WITHIN,
    );
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={other} trial=1 left=0"),
        GIVE_UP_WITHIN,
    );
    world.vm.wait_for(
        &format!("comptoir-uboot: slot={slot} trial=0 left=9"),
        GIVE_UP_WITHIN,
    );
    world.wait_for_boot();
    assert_eq!(left(world, other), "0");
    let status = status(world);
    assert_eq!(status["slot"], slot, "{status}");
    assert_eq!(status["failed"][0]["version"], BROKEN_VERSION, "{status}");
}
