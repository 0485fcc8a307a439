//! Long-lived health facts with stable codes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;

/// How bad a condition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The shop works as always; somebody should look some time.
    Notice,
    /// Something is impaired: the shop goes on, but not with everything.
    Warning,
    /// Orders or data are in danger, or devices are not served.
    Critical,
}

impl Severity {
    /// Its text form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $severity:ident, $en:literal, $fr:literal;)*) => {
        /// What a condition is about. The text form is stable: support and the platform search for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $en] $variant,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity { match self { $(Self::$variant => Severity::$severity,)* } }

            /// A sentence for shop staff, in English.
            #[must_use]
            pub const fn english(self) -> &'static str { match self { $(Self::$variant => $en,)* } }

            /// A sentence for shop staff, in French.
            #[must_use]
            pub const fn french(self) -> &'static str { match self { $(Self::$variant => $fr,)* } }
        }
    };
}

codes! {
    NotEnrolled = "wan.not_enrolled", Warning,
        "This box does not yet belong to a shop: no site is set.",
        "Cette box n'est pas encore rattachée à un magasin : aucun site n'est défini.";
    ApiUnreachable = "wan.api_unreachable", Warning,
        "The platform does not answer. The shop goes on with what the box holds.",
        "La plateforme ne répond pas. Le magasin continue avec ce que contient la box.";
    BusUnreachable = "wan.bus_unreachable", Warning,
        "Orders from the internet do not arrive at the moment.",
        "Les commandes d'internet n'arrivent pas pour le moment.";
    MediaUnreachable = "wan.media_unreachable", Notice,
        "New images do not arrive at the moment.",
        "Les nouvelles images n'arrivent pas pour le moment.";
    Unauthorized = "wan.unauthorized", Warning,
        "The platform refuses this box's credentials.",
        "La plateforme refuse les identifiants de cette box.";
    CaFileRefused = "wan.ca_file_refused", Warning,
        "A certificate file of this shop can't be used: please tell the network's administrator.",
        "Un fichier de certificat de ce magasin est inutilisable : prévenez l'administrateur du réseau.";
    WanStuck = "wan.worker_stuck", Warning,
        "A transfer with the internet hung and was ended by itself.",
        "Un échange avec internet était bloqué et a été interrompu automatiquement.";
    LogsUnreachable = "wan.logs_unreachable", Notice,
        "Support can't see this box's log at the moment. The shop is not affected.",
        "L'assistance ne voit pas le journal de cette box pour le moment. Le magasin n'est pas concerné.";
    SupportUnreachable = "wan.support_unreachable", Notice,
        "Support is not told at once when something is wrong here. The shop is not affected.",
        "L'assistance n'est pas prévenue aussitôt en cas de problème. Le magasin n'est pas concerné.";
    LogsRefused = "logs.batch_refused", Notice,
        "A part of this box's log was refused and dropped. The shop is not affected.",
        "Une partie du journal de cette box a été refusée et abandonnée. Le magasin n'est pas concerné.";
    SupportRefused = "support.batch_refused", Notice,
        "A message to support was refused and dropped. The shop is not affected.",
        "Un message à l'assistance a été refusé et abandonné. Le magasin n'est pas concerné.";
    LogsBudgetUsed = "logs.budget_used", Notice,
        "This box has sent as much log today as it may; it goes on tomorrow.",
        "Cette box a envoyé aujourd'hui autant de journal que permis ; elle continuera demain.";
    SupportBudgetUsed = "support.budget_used", Notice,
        "This box has told support as much today as it may; it goes on tomorrow.",
        "Cette box a envoyé aujourd'hui à l'assistance autant de messages que permis ; elle continuera demain.";
    OutgoingDamaged = "outgoing.damaged", Notice,
        "A part of what waited to be sent to support was damaged and is lost. The shop is not affected.",
        "Une partie de ce qui devait être envoyé à l'assistance était abîmée et est perdue. Le magasin n'est pas concerné.";
    FeedItemRefused = "pull.item_refused", Notice,
        "The platform sent data that this box does not understand.",
        "La plateforme a envoyé des données que cette box ne comprend pas.";
    MediaDocumentRefused = "media.document_refused", Notice,
        "The platform announces images or videos in a way that this box can't follow.",
        "La plateforme annonce des images ou des vidéos d'une façon que cette box ne peut pas suivre.";
    MediaFailed = "media.file_failed", Notice,
        "Some images or videos are missing at the platform, or are not what it announced.",
        "Des images ou des vidéos manquent sur la plateforme, ou ne sont pas ce qu'elle a annoncé.";
    MediaWithoutPlace = "media.without_place", Warning,
        "There is not enough room on this box for all images and videos that are planned.",
        "Il n'y a pas assez de place dans cette box pour toutes les images et vidéos prévues.";
    CatalogueDiffers = "pull.catalogue_differs", Warning,
        "Some product data differ from the platform's and can't be repaired: please call support.",
        "Des données produits diffèrent de celles de la plateforme et ne peuvent pas être réparées : appelez l'assistance.";
    OrderParked = "bus.order_parked", Warning,
        "An order arrived that could not be read. It is kept; please call support.",
        "Une commande reçue est illisible. Elle est conservée ; appelez l'assistance.";
    OrderDocumentMissing = "bus.order_document_missing", Warning,
        "An order was announced, but its content can't be fetched yet. It is tried again; if this stays, please call support.",
        "Une commande est annoncée, mais son contenu n'est pas encore disponible. Il sera redemandé ; si cela dure, appelez l'assistance.";
    OrderConflict = "bus.order_conflict", Warning,
        "An order arrived twice with different content. The first one counts, the other is kept; please call support.",
        "Une commande est arrivée deux fois avec un contenu différent. La première compte, l'autre est conservée ; appelez l'assistance.";
    OrderVersionUnknown = "bus.order_version_unknown", Warning,
        "An order arrived in a newer form that this box can't read yet. It is kept; please call support.",
        "Une commande est arrivée sous une forme plus récente, illisible pour cette box. Elle est conservée ; appelez l'assistance.";
    OrderTooLarge = "bus.order_too_large", Warning,
        "An order is too large for this box and stays with the platform; please call support.",
        "Une commande est trop volumineuse pour cette box et reste sur la plateforme ; appelez l'assistance.";
    QueueMissing = "bus.queue_missing", Warning,
        "The platform has no order queue for this shop. Please call support.",
        "La plateforme n'a pas de file de commandes pour ce magasin. Appelez l'assistance.";
    OutboxAged = "push.items_aged", Critical,
        "Messages for the platform waited for more than a month and had to be given up; please call support.",
        "Des messages pour la plateforme attendaient depuis plus d'un mois et ont dû être abandonnés ; appelez l'assistance.";
    OutboxParked = "push.item_parked", Warning,
        "The platform refused a message of this box. It is kept; please call support.",
        "La plateforme a refusé un message de cette box. Il est conservé ; appelez l'assistance.";
    DeviceUnreachable = "devices.unreachable", Warning,
        "A device does not answer. Its orders wait for it.",
        "Un appareil ne répond pas. Ses commandes l'attendent.";
    NoDeviceForRole = "devices.role_vacant", Warning,
        "Orders wait, but no device is paired to take them.",
        "Des commandes attendent, mais aucun appareil n'est associé pour les recevoir.";
    OrdersExpired = "devices.orders_expired", Warning,
        "An order was given up in the last hour: no device took it, or said that it was done, in time. Please check whether it was made.",
        "Une commande a été abandonnée dans la dernière heure : aucun appareil ne l'a prise, ou n'a dit l'avoir terminée, à temps. Vérifiez si elle a été préparée.";
    StoreRebuilt = "store.catalogue_rebuilt", Notice,
        "The product data could not be used as they were and are being fetched again.",
        "Les données produits n'étaient plus utilisables et sont de nouveau chargées.";
    OrdersSalvaged = "store.orders_salvaged", Critical,
        "The order data were damaged. What was readable was saved; please call support.",
        "Les données de commandes étaient abîmées. Ce qui était lisible est sauvé ; appelez l'assistance.";
    DiskFull = "store.disk_full", Critical,
        "The box's memory is full: new orders can't be taken.",
        "La mémoire de la box est pleine : de nouvelles commandes ne peuvent pas être prises.";
    DiskFailing = "store.disk_failing", Critical,
        "The box can't write to its memory: please call support.",
        "La box n'arrive plus à écrire dans sa mémoire : appelez l'assistance.";
    SettingsRefused = "config.site_refused", Critical,
        "The shop's settings have a mistake and are not used: please call support.",
        "Les réglages du magasin contiennent une erreur et ne sont pas utilisés : appelez l'assistance.";
    Revoked = "enrol.revoked", Warning,
        "The platform no longer counts this box among its shops. The shop goes on with what the box holds; please call support.",
        "La plateforme ne compte plus cette box parmi ses magasins. Le magasin continue avec ce que contient la box ; appelez l'assistance.";
    ClockUnsure = "clock.unsure", Warning,
        "The box does not know what time it is: dates it shows may be wrong.",
        "La box ne connaît pas l'heure : les dates affichées peuvent être fausses.";
    ServerRestarted = "supervisor.server_restarted", Notice,
        "The server was restarted by itself after a fault.",
        "Le serveur a redémarré de lui-même après un défaut.";
    UpdateFailed = "update.failed", Notice,
        "A new version of this box could not be brought in. The box goes on with the one it has.",
        "Une nouvelle version de cette box n'a pas pu être mise en place. La box continue avec celle qu'elle a.";
}

/// One condition that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Stable code, as in `wan.api_unreachable`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// For support: what exactly; never a secret or a customer's data.
    pub detail: String,
}

/// All conditions that hold now. Clones share one table; its size is bounded by the number of codes.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    table: Arc<Mutex<BTreeMap<Code, (i64, String)>>>,
}

impl Conditions {
    /// The condition holds; `now_ms` becomes its start if it did not hold already. True when it is new.
    pub fn raise(&self, code: Code, detail: impl Into<String>, now_ms: i64) -> bool {
        let detail = detail.into();
        let mut table = self.lock();
        if let Some((_, known)) = table.get_mut(&code) {
            *known = detail;
            return false;
        }
        tracing::warn!(
            event = "conditions.raised",
            code = code.as_str(),
            severity = code.severity().name(),
            detail = detail.as_str()
        );
        table.insert(code, (now_ms, detail));
        true
    }

    /// The condition does not hold any more. True when it did.
    pub fn clear(&self, code: Code) -> bool {
        let held = self.lock().remove(&code).is_some();
        if held {
            tracing::info!(event = "conditions.cleared", code = code.as_str());
        }
        held
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, code: Code) -> bool {
        self.lock().contains_key(&code)
    }

    /// Moves the beginnings that lie between two wall times: a wrong clock made them.
    pub fn restamp(&self, since_ms: i64, until_ms: i64, delta_ms: i64) {
        for (began_ms, _) in self.lock().values_mut() {
            if (since_ms..=until_ms).contains(began_ms) {
                *began_ms = began_ms.saturating_add(delta_ms);
            }
        }
    }

    /// All that hold, the worst first.
    #[must_use]
    pub fn list(&self) -> Vec<(Code, Condition)> {
        let mut list: Vec<_> = self
            .lock()
            .iter()
            .map(|(code, (since_ms, detail))| {
                let condition = Condition {
                    code: code.as_str(),
                    severity: code.severity(),
                    since_ms: *since_ms,
                    detail: detail.clone(),
                };
                (*code, condition)
            })
            .collect();
        list.sort_by_key(|(_, condition)| std::cmp::Reverse(condition.severity));
        list
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Code, (i64, String)>> {
        self.table.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_start_until_it_is_cleared() {
        let conditions = Conditions::default();
        assert!(conditions.raise(Code::ApiUnreachable, "timeout", 10));
        assert!(!conditions.raise(Code::ApiUnreachable, "refused", 20));
        let (_, condition) = conditions.list().remove(0);
        assert_eq!(
            (condition.since_ms, condition.detail.as_str()),
            (10, "refused")
        );
        assert!(conditions.clear(Code::ApiUnreachable));
        assert!(!conditions.clear(Code::ApiUnreachable));
    }

    #[test]
    fn a_beginning_that_a_wrong_clock_made_moves_with_the_clock() {
        let conditions = Conditions::default();
        conditions.raise(Code::ApiUnreachable, "", 10);
        conditions.raise(Code::DiskFull, "", 99);
        conditions.restamp(5, 50, 1000);
        let since: Vec<_> = conditions
            .list()
            .into_iter()
            .map(|(_, condition)| condition.since_ms)
            .collect();
        assert_eq!(since, [99, 1010]);
    }

    #[test]
    fn the_worst_comes_first() {
        let conditions = Conditions::default();
        conditions.raise(Code::MediaUnreachable, "", 1);
        conditions.raise(Code::DiskFull, "", 2);
        assert_eq!(conditions.list()[0].0, Code::DiskFull);
    }

    #[test]
    fn every_code_is_written_once() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }
}
