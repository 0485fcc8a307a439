//! Which device asks: a bearer token (RFC 6750) that pairing gave out.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};

use super::house::House;
use super::problem::{Kind, Problem};
use super::request::Ask;
use crate::store::Device;

/// The device whose token the request carries.
///
/// # Errors
/// 401: without a token, with one nobody has, or with one that was revoked; which of them is not told.
pub fn device(house: &House, ask: &Ask) -> Result<Arc<Device>, Box<Problem>> {
    ask.header(&AUTHORIZATION)
        .and_then(bearer)
        .and_then(|token| house.store.devices.by_token(token))
        .ok_or_else(|| {
            Problem::new(
                Kind::Unauthorized,
                "send the token that pairing gave, as 'Authorization: Bearer TOKEN'",
            )
            .header(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"comptoir\""),
            )
        })
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn only_a_bearer_token_is_one() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["abc", "Basic abc", "Bearer", "Bearer ", ""] {
            assert_eq!(bearer(other), None, "{other:?}");
        }
    }
}
