//! Runs the cases, a few at a time, and speaks like Rust's own test runner.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::net;
use crate::world::World;

/// One case: how its shop is set up, and the weather.
pub struct Case {
    name: &'static str,
    setup: fn(&'static str) -> World,
    weather: fn(&mut World),
}

/// A shop that reaches the platform directly.
pub const fn direct(name: &'static str, weather: fn(&mut World)) -> Case {
    Case {
        name,
        setup: World::direct,
        weather,
    }
}

/// A shop behind a real proxy that wants a password.
pub const fn proxied(name: &'static str, weather: fn(&mut World)) -> Case {
    Case {
        name,
        setup: World::proxied,
        weather,
    }
}

/// A shop whose box was claimed at the platform: its credentials end, and are renewed.
pub const fn enrolled(name: &'static str, weather: fn(&mut World)) -> Case {
    Case {
        name,
        setup: World::enrolled,
        weather,
    }
}

/// A shop whose box asks for everything in crumbs: a control of what measures.
pub const fn in_crumbs(name: &'static str, weather: fn(&mut World)) -> Case {
    Case {
        name,
        setup: World::in_crumbs,
        weather,
    }
}

impl Case {
    fn run(&self) {
        let mut world = (self.setup)(self.name);
        world.open();
        (self.weather)(&mut world);
        world.settle();
    }
}

/// Cases mostly wait, so more of them than cores run at a time.
const AT_A_TIME: usize = 4;

/// Exit code of Rust's own runner when a test failed.
const FAILED: u8 = 101;

pub fn run(cases: &'static [Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| case.name.contains(*name)))
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for case in &chosen {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if let Err(why) = net::enter_own_namespace() {
        for case in &chosen {
            println!("test {} ... ignored, {why}", case.name);
        }
        println!(
            "\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out",
            chosen.len()
        );
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let failures = run_all(&chosen);
    let verdict = if failures == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failures} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        chosen.len() - failures,
        cases.len() - chosen.len(),
        started.elapsed().as_secs_f32()
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

fn run_all(cases: &[&Case]) -> usize {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let passed = catch_unwind(AssertUnwindSafe(|| case.run())).is_ok();
                    let verdict = if passed { "ok" } else { "FAILED" };
                    println!(
                        "test {} ... {verdict} ({:.1} s)",
                        case.name,
                        started.elapsed().as_secs_f32()
                    );
                    if !passed {
                        *failures.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}
