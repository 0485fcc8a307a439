//! `comptoir set-clock`: the one program of ours with a privilege, and it does one thing.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::clock::{BootStamp, Clock as _, SystemClock};
use crate::wan::time::floor::release_floor_ms;
use crate::wan::time::hand_over::{WORTH_SETTING_MS, judge};

pub(super) fn run(note_path: &Path) -> anyhow::Result<ExitCode> {
    let now = BootStamp::now().context("cannot tell this boot")?;
    let wall_ms = judge(note_path, &now, release_floor_ms())?;
    let ahead_ms = SystemClock::default().wall_ms().saturating_sub(wall_ms);
    if ahead_ms.abs() <= WORTH_SETTING_MS {
        println!("the clock is right: {ahead_ms} ms ahead");
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = wall_ms.div_euclid(1000);
    let nanoseconds = wall_ms.rem_euclid(1000) * 1_000_000;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, nanoseconds))
        .context("cannot set the clock")?;
    println!("the clock was {ahead_ms} ms ahead and is set");
    Ok(ExitCode::SUCCESS)
}
