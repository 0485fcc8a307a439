//! The `[wan.rollouts]` section: how the platform orders new versions (hawkBit's DDI API).

use std::time::Duration;

use super::reader::Reader;
use crate::identity::Secret;
use crate::units::ByteSize;

/// Roll-outs.
#[derive(Debug, Clone)]
pub struct RolloutsConfig {
    /// Off: new versions come by hand only.
    pub enabled: bool,
    /// hawkBit's tenant.
    pub tenant: String,
    /// hawkBit's name of this box; empty: the box's own id.
    pub controller_id: String,
    /// A token of its own; empty: the API's.
    pub token: Secret,
    /// What kind of token it is.
    pub token_kind: TokenKind,
    /// Told to the platform, which sorts boxes by it.
    pub channel: String,
    /// The platform is asked no more often than this, whatever it wishes.
    pub poll_min: Duration,
    /// And no more seldom.
    pub poll_max: Duration,
    /// One bundle at most.
    pub max_bundle: ByteSize,
}

/// hawkBit's two kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Of one target.
    Target,
    /// Of a tenant's gateway.
    Gateway,
}

impl TokenKind {
    /// The scheme of its `Authorization` header.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Target => "TargetToken",
            Self::Gateway => "GatewayToken",
        }
    }
}

impl RolloutsConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let tenant = reader.name("wan.rollouts.tenant", 64);
        if tenant.is_empty() {
            reader.refuse("wan.rollouts.tenant", "a tenant is needed");
        }
        let (poll_min, poll_max) = (
            reader.seconds("wan.rollouts.poll_min_s", 1..=3600),
            reader.seconds("wan.rollouts.poll_max_s", 60..=86_400),
        );
        if poll_max < poll_min {
            reader.refuse(
                "wan.rollouts.poll_max_s",
                "is shorter than wan.rollouts.poll_min_s",
            );
        }
        let kind = reader.choice("wan.rollouts.token_kind", &["target", "gateway"]);
        Self {
            enabled: reader.flag("wan.rollouts.enabled"),
            tenant,
            controller_id: reader.name("wan.rollouts.controller_id", 128),
            token: reader.secret("wan.rollouts.token"),
            token_kind: match &*kind {
                "gateway" => TokenKind::Gateway,
                _ => TokenKind::Target,
            },
            channel: reader.name("wan.rollouts.channel", 64),
            poll_min,
            poll_max: poll_max.max(poll_min),
            max_bundle: reader.mib("wan.rollouts.max_bundle_mib", 1..=4096),
        }
    }
}
