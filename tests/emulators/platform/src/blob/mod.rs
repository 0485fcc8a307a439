//! placeholder
pub mod reply {
    use crate::serve::reply::{Reply, problem};
    pub fn error(s: hyper::StatusCode, _c: &str, d: &str) -> Reply {
        problem(s, "blob", d)
    }
}
pub async fn answer(
    _r: hyper::Request<hyper::body::Incoming>,
    _p: &std::sync::Arc<crate::platform::Platform>,
) -> crate::serve::reply::Reply {
    reply::error(hyper::StatusCode::NOT_IMPLEMENTED, "", "")
}
