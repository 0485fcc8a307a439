//! A clock chip that says what it likes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::vm::eventually;
use crate::world::World;

/// The first round of questions to the platform, with everything emulated.
const KNOWN_WITHIN: Duration = Duration::from_secs(120);

/// A guest's command and a machine under load take their time.
const TOLERANCE_S: i64 = 15;

/// Whatever the chip says at the start, the box learns the time, sets the machine's clock by it, and works.
pub fn a_wrong_clock_chip_is_overruled_by_the_platforms_word(world: &mut World) {
    for (n, chip) in ["2037-06-01T00:00:00", "1970-01-01T00:00:00"]
        .into_iter()
        .enumerate()
    {
        world.vm.cut_power();
        world.vm.set_clock_chip(Some(chip));
        world.power_on();
        eventually("two hosts agree on the time", KNOWN_WITHIN, || {
            let status = world.status();
            (status["time"]["quality"] == "good").then_some(())
        });
        eventually("the machine's clock is set", KNOWN_WITHIN, || {
            let guest = world.shell.run("date +%s").ok();
            let off_s = guest.trim().parse::<i64>().unwrap() - Timestamp::now().as_second();
            (off_s.abs() < TOLERANCE_S).then_some(())
        });
        let state = world.shell.run("systemctl show -P Result comptoir-clock");
        assert_eq!(state.ok().trim(), "success", "{chip}");
        let id = format!("clock-{n}");
        world.platform.put_document(&id, &json!({"name": chip}));
        eventually("a change comes in", KNOWN_WITHIN, || {
            let path = format!("/v1/documents/products/{id}");
            (world.get(8000, &path).status == 200).then_some(())
        });
    }
    world.vm.set_clock_chip(None);
}
