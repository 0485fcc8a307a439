//! The `[wan.media]` section.

use super::reader::Reader;
use super::window::DailyWindow;
use crate::units::ByteSize;

/// Fetching images, videos, documents.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// Off: nothing is fetched.
    pub enabled: bool,
    /// One blob at most.
    pub max_blob: ByteSize,
    /// When media that are not urgent are fetched; `None`: at any time.
    pub window: Option<DailyWindow>,
    /// Together at most in a second, urgent ones aside; `None`: no cap.
    pub rate_cap: Option<ByteSize>,
    /// Fetched at the same time.
    pub parallel: usize,
}

impl MediaConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let rate_cap = reader.kib("wan.media.rate_cap_kib_s", 0..=1_048_576);
        Self {
            enabled: reader.flag("wan.media.enabled"),
            max_blob: reader.mib("wan.media.max_blob_mib", 1..=16_384),
            window: reader.window("wan.media.window"),
            rate_cap: Some(rate_cap).filter(|cap| cap.as_u64() > 0),
            parallel: usize::try_from(reader.number("wan.media.parallel", 1..=4)).unwrap_or(1),
        }
    }
}
