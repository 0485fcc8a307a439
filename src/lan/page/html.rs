//! Small pieces of HTML. A state is colour, sign and word together, never the colour alone.

use std::fmt::{self, Write as _};

use crate::lan::status::Level;

/// The style's name of a level.
pub const fn level_class(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Notice => "notice",
        Level::Warning => "warning",
        Level::Critical => "critical",
    }
}

/// A state in a line.
pub fn pill(level: Level, word: &str) -> String {
    let sign = match level {
        Level::Good => "✓",
        Level::Notice => "i",
        Level::Warning => "!",
        Level::Critical => "✕",
    };
    tag(level_class(level), sign, word)
}

/// A pill of any style.
pub fn tag(class: &str, sign: &str, word: &str) -> String {
    format!("<span class=\"pill {class}\"><b aria-hidden=\"true\">{sign}</b>{word}</span>")
}

/// The large sign beside the verdict: each level has a shape of its own.
pub const fn icon(level: Level) -> &'static str {
    match level {
        Level::Good => {
            "<svg class=\"sign\" viewBox=\"0 0 48 48\" aria-hidden=\"true\"><circle cx=\"24\" cy=\"24\" r=\"22\"/>\
             <path class=\"mark\" d=\"M13 25l8 8 14-17\"/></svg>"
        }
        Level::Notice => {
            "<svg class=\"sign\" viewBox=\"0 0 48 48\" aria-hidden=\"true\"><rect x=\"3\" y=\"3\" width=\"42\" height=\"42\" rx=\"12\"/>\
             <path class=\"mark\" d=\"M24 22v13M24 13v1\"/></svg>"
        }
        Level::Warning => {
            "<svg class=\"sign\" viewBox=\"0 0 48 48\" aria-hidden=\"true\"><path d=\"M24 3l22 40H2z\"/>\
             <path class=\"mark\" d=\"M24 18v12M24 36v1\"/></svg>"
        }
        Level::Critical => {
            "<svg class=\"sign\" viewBox=\"0 0 48 48\" aria-hidden=\"true\"><path d=\"M15 2h18l13 13v18L33 46H15L2 33V15z\"/>\
             <path class=\"mark\" d=\"M16 16l16 16M32 16L16 32\"/></svg>"
        }
    }
}

/// Text inside HTML.
pub struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
