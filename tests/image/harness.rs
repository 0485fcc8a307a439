//! Runs the cases one after the other on a shared box, and speaks like Rust's own test runner.
//!
//! A box whose case failed is not trusted any more: the next case gets a fresh one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use crate::world::World;

/// One case.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&mut World),
}

/// A case by its path, named by its last word.
macro_rules! case {
    ($path:path) => {
        $crate::harness::Case {
            name: stringify!($path),
            run: $path,
        }
    };
}
pub(crate) use case;

const WHY_IGNORED: &str = "needs target/image; scripts/test runs them";

/// Exit code of Rust's own runner when a test failed.
const FAILED: u8 = 101;

pub fn run(cases: &[Case]) -> ExitCode {
    let wish = Wish::of_command_line();
    let chosen: Vec<_> = cases.iter().filter(|case| wish.wants(case)).collect();
    if wish.list {
        for case in &chosen {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if !wish.ignored {
        for case in &chosen {
            println!("test {} ... ignored, {WHY_IGNORED}", case.name);
        }
        println!(
            "\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; {} filtered out; finished in 0.00s\n",
            chosen.len(),
            cases.len() - chosen.len()
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
    let mut world: Option<World> = None;
    let mut failures = 0;
    for case in cases {
        let started = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| {
            (case.run)(world.get_or_insert_with(World::new));
        }))
        .is_ok();
        let verdict = if passed { "ok" } else { "FAILED" };
        println!(
            "test {} ... {verdict} ({:.1} s)",
            case.name,
            started.elapsed().as_secs_f32()
        );
        if !passed {
            failures += 1;
            if let Some(world) = world.take() {
                world.print_last_words();
            }
        }
    }
    failures
}

/// What the command line asks for; flags of Rust's own runner that change nothing here are taken and ignored.
struct Wish {
    ignored: bool,
    list: bool,
    exact: bool,
    names: Vec<String>,
}

impl Wish {
    fn of_command_line() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let mut names = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--test-threads" | "--format" | "--skip" | "--color" => drop(rest.next()),
                flag if flag.starts_with('-') => {}
                name => names.push(name.to_owned()),
            }
        }
        Self {
            ignored: has("--ignored") || has("--include-ignored"),
            list: has("--list"),
            exact: has("--exact"),
            names,
        }
    }

    fn wants(&self, case: &Case) -> bool {
        self.names.is_empty()
            || self.names.iter().any(|name| {
                if self.exact {
                    case.name == name
                } else {
                    case.name.contains(name.as_str())
                }
            })
    }
}
