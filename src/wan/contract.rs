//! The network contract: every flow that may leave the shop, once, for the check, the portal and the code alike.
//!
//! Shops' firewalls were opened for exactly this. Configuration may change a host (tests, other platforms), never add a flow.

use crate::config::{HttpsUrl, WanConfig};
use crate::language::Sentence;

/// The only TCP port anything leaves by.
pub const HTTPS_PORT: u16 = 443;

/// Which flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowId {
    /// Data synchronisation, roll-outs, time, enrolment.
    Api,
    /// Direct delivery of orders (Azure Service Bus).
    Bus,
    /// Images, videos, documents (Azure Blob storage).
    Media,
    /// Logs (Logmatic HTTP input).
    Logs,
    /// Support events (Azure Service Bus).
    Support,
}

/// Whether a shop can do without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The box is of no use for long without it.
    Required,
    /// A feature is missing without it.
    Optional,
    /// Nothing is missing in the shop, but support is slower.
    Recommended,
}

/// One line of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Which.
    pub id: FlowId,
    /// Stable name in logs, metrics, checks.
    pub name: &'static str,
    /// Host unless configured otherwise.
    pub default_host: &'static str,
    /// Whether a shop can do without it.
    pub need: Need,
    /// What it is for, in English.
    pub english: &'static str,
    /// What it is for, in French.
    pub french: &'static str,
}

/// The contract, outbound to the internet: HTTPS on TCP [`HTTPS_PORT`] only, and no other flow, ever.
pub const CONTRACT: [Flow; 5] = [
    Flow {
        id: FlowId::Api,
        name: "api",
        default_host: "api.server.commerce-hub.io",
        need: Need::Required,
        english: "data synchronisation, roll-outs, time, enrolment",
        french: "synchronisation des données, mises à jour, heure, rattachement",
    },
    Flow {
        id: FlowId::Bus,
        name: "bus",
        default_host: "e-serversync-ns.servicebus.windows.net",
        need: Need::Optional,
        english: "direct delivery of orders into the shop",
        french: "livraison directe des commandes au magasin",
    },
    Flow {
        id: FlowId::Media,
        name: "media",
        default_host: "simplementedata.blob.core.windows.net",
        need: Need::Optional,
        english: "images, videos, documents",
        french: "images, vidéos, documents",
    },
    Flow {
        id: FlowId::Logs,
        name: "logs",
        default_host: "api.logmatic.io",
        need: Need::Recommended,
        english: "logs for faster support",
        french: "journaux pour une assistance plus rapide",
    },
    Flow {
        id: FlowId::Support,
        name: "support",
        default_host: "koostodesapp-ns.servicebus.windows.net",
        need: Need::Recommended,
        english: "support events",
        french: "événements d'assistance",
    },
];

impl Need {
    /// In a word.
    #[must_use]
    pub const fn sentence(self) -> Sentence {
        match self {
            Self::Required => Sentence {
                en: "required",
                fr: "obligatoire",
            },
            Self::Optional => Sentence {
                en: "optional",
                fr: "facultatif",
            },
            Self::Recommended => Sentence {
                en: "recommended",
                fr: "recommandé",
            },
        }
    }
}

impl Flow {
    /// What it is for.
    #[must_use]
    pub const fn purpose(&self) -> Sentence {
        Sentence {
            en: self.english,
            fr: self.french,
        }
    }
}

impl FlowId {
    /// Whether this shop's settings let it carry anything.
    #[must_use]
    pub const fn is_used(self, config: &WanConfig) -> bool {
        match self {
            Self::Api => true,
            Self::Bus => config.bus.enabled,
            Self::Media => config.media.enabled,
            Self::Logs => config.logs.enabled,
            Self::Support => config.support.enabled,
        }
    }

    /// Its line of the contract.
    #[must_use]
    pub fn flow(self) -> &'static Flow {
        CONTRACT
            .iter()
            .find(|flow| flow.id == self)
            .expect("the contract has a line for every flow")
    }

    /// The host this box uses for it.
    #[must_use]
    pub fn url(self, config: &WanConfig) -> &HttpsUrl {
        match self {
            Self::Api => &config.api_url,
            Self::Bus => &config.bus_url,
            Self::Media => &config.media_url,
            Self::Logs => &config.logs_url,
            Self::Support => &config.support_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_built_in_settings_are_the_contract() {
        let config = Config::from_layers(&[]).unwrap().wan;
        for flow in CONTRACT {
            let url = flow.id.url(&config);
            assert_eq!(url.host(), flow.default_host);
            assert_eq!(url.port(), HTTPS_PORT);
            assert_eq!(flow.id.flow(), &flow);
        }
    }
}
