//! `comptoir setup`: bringing the shop's settings in.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::Files;
use crate::config::{Imported, import_site};

/// Set-up verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Setup {
    /// Take site.toml and the certificates it names from a folder (a USB stick); the old settings stay when it is wrong.
    Import {
        /// The folder.
        #[arg(long)]
        from: PathBuf,
    },
}

impl Setup {
    pub(super) fn run(&self, files: &Files) -> anyhow::Result<ExitCode> {
        let Self::Import { from } = self;
        match import_site(from, &files.image_file, &files.site_file)? {
            Imported::Unchanged => println!("the settings are those the box has already"),
            Imported::Taken { ca_files } => println!(
                "the settings were taken, with {ca_files} certificate file(s); they hold from the next start"
            ),
        }
        Ok(ExitCode::SUCCESS)
    }
}
