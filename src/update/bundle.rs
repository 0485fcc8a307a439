//! A bundle: one signed file that holds a complete system.

use serde::Deserialize;

/// What a bundle says of itself, after RAUC has verified its signature.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BundleInfo {
    /// What it is made for.
    pub compatible: String,
    /// Which version it brings.
    pub version: String,
}

/// RAUC printed something else than a bundle's description, or one without a version.
#[derive(Debug, thiserror::Error)]
#[error("cannot read RAUC's description of the bundle")]
pub struct ReadBundleError(#[from] serde_json::Error);

impl BundleInfo {
    /// Reads what `rauc info --output-format=json` prints.
    ///
    /// # Errors
    /// When it is no JSON of that shape. A bundle without a version is refused: it could not be remembered.
    pub fn read(json: &[u8]) -> Result<Self, ReadBundleError> {
        Ok(serde_json::from_slice(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_a_version_or_is_refused() {
        let json = br#"{"compatible":"c","version":"1.2.3","description":null,"build":null,"hooks":[],"images":[]}"#;
        let info = BundleInfo::read(json).unwrap();
        assert_eq!(
            (info.compatible.as_str(), info.version.as_str()),
            ("c", "1.2.3")
        );
        assert!(BundleInfo::read(br#"{"compatible":"c","version":null}"#).is_err());
    }
}
