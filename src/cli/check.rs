//! `comptoir check` and `comptoir boot-report`: the self-diagnosis.

use std::env;
use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use super::Files;
use crate::config::Config;
use crate::diagnose::boot_report::BootReport;
use crate::diagnose::checks::Asked;
use crate::diagnose::report::{Report, Scope};
use crate::diagnose::sheet::{self, Sheet};
use crate::diagnose::text::{self, Style};
use crate::language::Language;
use crate::telemetry::start_logs;
use crate::version::running;
use crate::wan::contract::{CONTRACT, FlowId};

/// What `comptoir check --help` says below the options.
pub(super) const HELP: &str = "\
Exit code:
  0  all is well
  1  the shop works; something it can do without for a while does not (an optional flow, or a warning of the box)
  2  a required flow does not work
  3  the box itself does not work as it should
The worst counts. The form of --json is described in docs/check.schema.json.

Before settings are saved: comptoir check --site-file NEW.toml
Colour is used on a terminal, unless NO_COLOR is set.";

/// The options of `comptoir check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckOptions {
    /// For programs: one JSON document.
    #[arg(long)]
    json: bool,
    /// Language of the texts: en or fr; that of LANG otherwise.
    #[arg(long, value_parser = language)]
    lang: Option<Language>,
    /// One flow of the network contract alone: api, bus, media, logs or support.
    #[arg(long, value_parser = flow)]
    flow: Option<FlowId>,
    /// Ask nothing: print the firewall sheet of this shop for whoever runs its network.
    #[arg(long, conflicts_with = "flow")]
    sheet: bool,
}

fn language(tag: &str) -> Result<Language, String> {
    Language::by_tag(tag).ok_or_else(|| "en or fr is expected".to_owned())
}

fn flow(name: &str) -> Result<FlowId, String> {
    let names: Vec<_> = CONTRACT.iter().map(|flow| flow.name).collect();
    CONTRACT
        .iter()
        .find(|flow| flow.name == name)
        .map(|flow| flow.id)
        .ok_or_else(|| format!("one of {} is expected", names.join(", ")))
}

pub(super) fn check(files: &Files, options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let language = options.lang.unwrap_or_else(Language::of_terminal);
    if options.sheet {
        // A sheet of other settings than the shop's would open the wrong things.
        let sheet = Sheet::of(&Config::load(&files.image_file, &files.site_file)?);
        if options.json {
            println!("{}", serde_json::to_string_pretty(&sheet)?);
        } else {
            print!("{}", sheet::write(&sheet, language));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (config, refused) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    let asked = Asked {
        config,
        refused: refused.map(|refused| refused.to_string()),
    };
    let scope = options.flow.map_or(Scope::Everything, Scope::Flow);
    let report = Report::make(&asked, scope);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let style = Style {
            language,
            colour: wants_colour(),
        };
        print!("{}", text::write(&report, style));
    }
    Ok(ExitCode::from(report.exit_code))
}

/// On a terminal, unless `NO_COLOR` is set and not empty (no-color.org).
fn wants_colour() -> bool {
    stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

pub(super) fn boot_report(files: &Files) -> anyhow::Result<ExitCode> {
    // A box with wrong settings is exactly the one whose report is wanted.
    let config = Config::load(&files.image_file, &files.site_file);
    let config = config.or_else(|_| Config::from_layers(&[]))?;
    start_logs(&config.telemetry, None);
    println!(
        "{}",
        BootReport::of_this_boot(running(), &config.store.data_dir).line()
    );
    Ok(ExitCode::SUCCESS)
}
