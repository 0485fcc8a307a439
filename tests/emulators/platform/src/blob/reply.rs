//! Headers and errors of Azure Blob storage.

use hyper::StatusCode;
use hyper::header::HeaderName;

use crate::platform::rfc1123;
use crate::serve::reply::{Reply, set, text_of};
use crate::store::blobs::Blob;

/// The version of the REST API that is answered in.
const VERSION: &str = "2025-11-05";

pub const X_MS_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const X_MS_VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const X_MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const X_MS_BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");

/// An error answer: the code in a header and in XML. (A HEAD's body is dropped on the way out.)
pub fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    error_with(status, code, message, None)
}

/// The same; `detail` is why a signature was refused.
pub fn error_with(status: StatusCode, code: &str, message: &str, detail: Option<&str>) -> Reply {
    let detail = detail.map_or_else(String::new, |detail| {
        format!("<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>")
    });
    let text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message>{detail}</Error>"
    );
    let mut reply = text_of(status, "application/xml", text);
    set(&mut reply, X_MS_ERROR_CODE, code);
    reply
}

/// What every answer carries.
pub fn set_common(reply: &mut Reply, client_request_id: Option<&str>) {
    set(reply, X_MS_VERSION, VERSION);
    set(reply, X_MS_REQUEST_ID, &crate::bus::properties::guid());
    if let Some(id) = client_request_id {
        set(reply, HeaderName::from_static("x-ms-client-request-id"), id);
    }
}

/// What every answer about a blob carries.
pub fn set_blob(reply: &mut Reply, blob: &Blob) {
    set(reply, hyper::header::ETAG, &blob.etag);
    set(
        reply,
        hyper::header::LAST_MODIFIED,
        &rfc1123(blob.modified_ms),
    );
    set(reply, hyper::header::ACCEPT_RANGES, "bytes");
    set(reply, X_MS_BLOB_TYPE, "BlockBlob");
}
