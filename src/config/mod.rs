//! The settings: built-in `default.toml` <- image file <- site file.
//!
//! Raw files are turned into one checked [`Config`] once; unknown keys are refused and all problems are reported at
//! once, each with file, line and key. Every part of the house is handed only its own section.

mod deadlines;
mod import;
mod layer;
mod media;
mod ports;
mod problem;
mod proxy;
mod reader;
mod rollouts;
mod sections;
mod shipping;
mod update;
mod wan;
mod window;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use deadlines::Deadlines;
pub use import::{ImportSiteError, Imported, import_site};
pub use media::MediaConfig;
pub use ports::LanPort;
pub use problem::{CheckConfigError, Origin, Problem};
pub use proxy::{
    Bypass, FlowProxy, PROXY_FLOWS, ProxyConfig, ProxyScheme, ProxySettings, ProxyUrl,
};
pub use rollouts::{RolloutsConfig, TokenKind};
pub use sections::{
    DevicesConfig, DiscoveryConfig, LanConfig, LanLimits, LogFormat, SiteConfig, StoreConfig,
    SupervisorConfig, TelemetryConfig,
};
pub use shipping::{LogDialect, LogsConfig, ShippingBounds, SupportConfig, SupportKind};
pub use update::{Downgrade, UpdateConfig};
pub use wan::{BusConfig, HttpsUrl, OrdersFeedConfig, PullConfig, PushConfig, WanConfig};
pub use window::DailyWindow;

use reader::Reader;

/// The built-in layer, and the list of all keys.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// A settings file may not be larger than this: it is written by people.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which shop this is.
    pub site: SiteConfig,
    /// Everything that leaves the shop.
    pub wan: WanConfig,
    /// The ports devices use.
    pub lan: LanConfig,
    /// Finding and being found.
    pub discovery: DiscoveryConfig,
    /// Commands to devices.
    pub devices: DevicesConfig,
    /// The data partition.
    pub store: StoreConfig,
    /// Keeping the server alive.
    pub supervisor: SupervisorConfig,
    /// New versions.
    pub update: UpdateConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

/// The settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// A file exists and can't be read.
    #[error("cannot read the settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is far larger than settings are.
    #[error("the settings file {path} has {size} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// What the files say is wrong.
    #[error(transparent)]
    Check(#[from] CheckConfigError),
}

impl Config {
    /// Loads the layers; a file that does not exist says nothing.
    ///
    /// # Errors
    /// An unreadable file, or all problems of all files at once.
    pub fn load(image_file: &Path, site_file: &Path) -> Result<Self, LoadConfigError> {
        let image = read_file(image_file)?;
        let site = read_file(site_file)?;
        let image = image.as_deref().map(|text| (image_file, text));
        let site = site.as_deref().map(|text| (site_file, text));
        Ok(Self::from_layers(
            &[image, site].into_iter().flatten().collect::<Vec<_>>(),
        )?)
    }

    /// As [`Config::load`], but settings of the shop that can't be used are left out, and why is returned beside: a box
    /// without screen must stay reachable in the shop, whatever stands in its site file.
    ///
    /// # Errors
    /// When the image's own settings are wrong.
    pub fn load_or_without_site(
        image_file: &Path,
        site_file: &Path,
    ) -> Result<(Self, Option<LoadConfigError>), LoadConfigError> {
        match Self::load(image_file, site_file) {
            Ok(config) => Ok((config, None)),
            Err(refused) => {
                let image = read_file(image_file)?;
                let layers: Vec<_> = image
                    .iter()
                    .map(|text| (image_file, text.as_str()))
                    .collect();
                Ok((Self::from_layers(&layers)?, Some(refused)))
            }
        }
    }

    /// Checks layers that are in memory: path (for messages, and as the base of relative paths) and text of each.
    ///
    /// # Errors
    /// All problems at once.
    pub fn from_layers(layers: &[(&Path, &str)]) -> Result<Self, CheckConfigError> {
        let mut problems = Vec::new();
        let defaults = layer::read("default.toml", DEFAULT_TOML, &mut problems);
        let mut reader = Reader::new(defaults, problems);
        for (path, text) in layers {
            let settings = layer::read(&path.display().to_string(), text, &mut reader.problems);
            reader.lay_over(settings);
        }
        let base_dir = layers
            .last()
            .and_then(|(path, _)| path.parent())
            .unwrap_or(Path::new("."));
        let config = Self {
            site: SiteConfig::check(&mut reader),
            wan: WanConfig::check(&mut reader, base_dir),
            lan: LanConfig::check(&mut reader),
            discovery: DiscoveryConfig::check(&mut reader),
            devices: DevicesConfig::check(&mut reader),
            store: StoreConfig::check(&mut reader),
            supervisor: SupervisorConfig::check(&mut reader),
            update: UpdateConfig::check(&mut reader),
            telemetry: TelemetryConfig::check(&mut reader),
        };
        if reader.problems.is_empty() {
            Ok(config)
        } else {
            Err(CheckConfigError {
                problems: reader.problems,
            })
        }
    }
}

fn read_file(path: &Path) -> Result<Option<String>, LoadConfigError> {
    let failed = |source| LoadConfigError::Read {
        path: path.into(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if meta.len() > MAX_FILE_BYTES => {
            return Err(LoadConfigError::TooLarge {
                path: path.into(),
                size: meta.len(),
            });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests;
