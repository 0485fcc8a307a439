//! placeholder
pub mod reply {
    use crate::serve::reply::{Reply, problem};
    pub fn error(s: hyper::StatusCode, d: &str) -> Reply {
        problem(s, "bus", d)
    }
}
pub async fn answer(
    _r: hyper::Request<hyper::body::Incoming>,
    _h: &str,
    _p: &std::sync::Arc<crate::platform::Platform>,
) -> crate::serve::reply::Reply {
    reply::error(hyper::StatusCode::NOT_IMPLEMENTED, "")
}
pub fn create_queues(_p: &crate::platform::Platform, _q: &[String]) -> anyhow::Result<()> {
    Ok(())
}
