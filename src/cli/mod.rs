//! The subcommands of `comptoir`: the edge where errors are printed, once, with their causes.

mod check;
mod sent;
mod serve;
mod set_aside;
mod set_clock;
mod setup;
mod status;
mod supervise;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::version::running;

/// The local server of a shop.
#[derive(Debug, Parser)]
#[command(name = "comptoir", version = running(), about, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

/// Where the settings stand.
#[derive(Debug, Clone, clap::Args)]
pub struct Files {
    /// Settings of the image; may be absent.
    #[arg(long, global = true, default_value = "/usr/lib/comptoir/image.toml")]
    pub image_file: PathBuf,
    /// Settings of this shop; may be absent.
    #[arg(long, global = true, default_value = "/data/comptoir/site/site.toml")]
    pub site_file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the shop's settings in.
    #[command(subcommand)]
    Setup(setup::Setup),
    /// Run the server; `supervise` does this on a box.
    Serve,
    /// Keep the server alive: run `comptoir serve`, watch that it works, start it again when it does not.
    Supervise,
    /// Ask the box how it is, and whether it reaches what the network contract names.
    #[command(after_help = check::HELP)]
    Check(check::CheckOptions),
    /// Say how the running box is: one line, then what is not as it should be. Exit code 1: it does not serve.
    Status {
        /// For programs: the document the front page is made of, and the last restarts.
        #[arg(long)]
        json: bool,
        /// Instead: what left the shop for support lately, word by word (at most five minutes behind).
        #[arg(long, conflicts_with = "json")]
        sent: bool,
    },
    /// Set the machine's clock from the server's note; `comptoir-clock.service` does this on a box.
    #[command(hide = true)]
    SetClock {
        /// The note.
        #[arg(long, default_value = "/run/comptoir/clock")]
        note: PathBuf,
    },
    /// Print one line about this boot, for the console.
    BootReport,
    /// Events that the platform refused: look, send again, drop.
    #[command(subcommand)]
    Outbox(set_aside::Outbox),
    /// Messages of the platform that are no orders: look, take again, drop.
    #[command(subcommand)]
    Inbox(set_aside::Inbox),
    /// New versions of the box.
    #[command(subcommand)]
    Update(update::Update),
    /// Print the version.
    Version,
}

/// Runs what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Setup(setup) => setup.run(&arguments.files),
        Command::Serve => serve::run(&arguments.files),
        Command::Supervise => supervise::run(&arguments.files),
        Command::Outbox(outbox) => outbox.run(&arguments.files),
        Command::Inbox(inbox) => inbox.run(&arguments.files),
        Command::Update(update) => update.run(&arguments.files),
        Command::Check(options) => check::check(&arguments.files, &options),
        Command::Status { sent: true, .. } => sent::run(&arguments.files),
        Command::Status { json, .. } => status::run(&arguments.files, json),
        Command::SetClock { note } => set_clock::run(&note),
        Command::BootReport => check::boot_report(&arguments.files),
        Command::Version => {
            println!("comptoir {}", running());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("comptoir: {error:#}");
        ExitCode::FAILURE
    })
}
