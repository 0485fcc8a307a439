//! What is wrong with the settings, each problem with file, line and key.

use std::fmt;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    file: String,
    line: usize,
}

impl Origin {
    pub(super) fn new(file: &str, line: usize) -> Self {
        Self {
            file: file.to_owned(),
            line,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: Origin,
    key: String,
    what: String,
}

impl Problem {
    pub(super) fn at(origin: Origin, key: &str, what: impl Into<String>) -> Self {
        Self {
            origin,
            key: key.to_owned(),
            what: what.into(),
        }
    }

    /// The dotted key, empty where the file itself is unreadable.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.origin.file, self.origin.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug, thiserror::Error)]
pub struct CheckConfigError {
    /// In the order of the files.
    pub problems: Vec<Problem>,
}

impl fmt::Display for CheckConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        let plural = if n == 1 { "" } else { "s" };
        write!(f, "the settings have {n} problem{plural}:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
