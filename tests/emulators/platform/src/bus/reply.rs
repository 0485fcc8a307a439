//! Errors in the form the service uses (assumed: the documentation shows statuses, not bodies).

use hyper::StatusCode;

use crate::serve::reply::{Reply, text_of};

/// An error answer.
pub fn error(status: StatusCode, detail: &str) -> Reply {
    let code = status.as_u16();
    let text = format!(
        "<Error><Code>{code}</Code><Detail>{}</Detail></Error>",
        escape(detail)
    );
    text_of(status, "application/xml; charset=utf-8", text)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
