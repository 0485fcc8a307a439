//! The page's words in French and English. In French texts: commande = order, ordre = command.

use crate::lan::status::Level;
use crate::language::Language;

/// The words of a language.
pub const fn words(language: Language) -> &'static Words {
    match language {
        Language::English => &ENGLISH,
        Language::French => &FRENCH,
    }
}

/// The texts. A pair is for one and for several.
#[derive(Debug)]
pub struct Words {
    pub this_box: &'static str,
    pub lost: &'static str,
    pub footer: &'static str,
    pub what_waits: &'static str,
    pub nothing_waits: &'static str,
    pub orders_wait: (&'static str, &'static str),
    pub messages_wait: (&'static str, &'static str),
    pub parked_wait: (&'static str, &'static str),
    pub whom_to_call: &'static str,
    pub no_contact: &'static str,
    pub orders: &'static str,
    pub waiting: &'static str,
    pub accepted: &'static str,
    pub in_progress: &'static str,
    pub ready: &'static str,
    pub to_send: &'static str,
    pub parked: &'static str,
    pub last_heard: &'static str,
    pub never: &'static str,
    pub catalogue: &'static str,
    pub complete: &'static str,
    pub filling: &'static str,
    pub documents: &'static str,
    pub media_held: &'static str,
    pub devices: &'static str,
    pub no_devices: &'static str,
    pub present: &'static str,
    pub silent: &'static str,
    pub not_heard: &'static str,
    pub last_hour: &'static str,
    pub requests: &'static str,
    pub orders_per_minute: &'static str,
    pub at_most: &'static str,
    pub hour_ago: &'static str,
    pub now: &'static str,
    pub ports: &'static str,
    pub port: &'static str,
    pub role: &'static str,
    pub state: &'static str,
    pub open: &'static str,
    pub closed: &'static str,
    pub day_unit: &'static str,
    levels: [&'static str; 4],
    roles: [(&'static str, &'static str); 7],
}

static ENGLISH: Words = Words {
    this_box: "This box",
    lost: "This page gets no answer from the box: what you see may be old.",
    footer: "This page renews itself every 5 seconds.",
    what_waits: "What is waiting",
    nothing_waits: "Nothing is waiting.",
    orders_wait: ("order for a device", "orders for a device"),
    messages_wait: ("message for the platform", "messages for the platform"),
    parked_wait: (
        "message set aside for support",
        "messages set aside for support",
    ),
    whom_to_call: "Whom to call",
    no_contact: "No contact is set for this shop.",
    orders: "Orders",
    waiting: "Waiting for a device",
    accepted: "Taken by a device",
    in_progress: "In progress",
    ready: "Ready",
    to_send: "To be sent to the platform",
    parked: "Set aside",
    last_heard: "Last data",
    never: "not yet",
    catalogue: "Catalogue",
    complete: "complete",
    filling: "coming in",
    documents: "documents",
    media_held: "Images and videos held",
    devices: "Devices",
    no_devices: "No device is paired yet. The code printed on the box pairs one.",
    present: "present",
    silent: "silent",
    not_heard: "not heard since the box started",
    last_hour: "The last hour",
    requests: "Requests per minute",
    orders_per_minute: "Orders per minute",
    at_most: "at most",
    hour_ago: "60 min ago",
    now: "now",
    ports: "Ports of this box",
    port: "Port",
    role: "Role",
    state: "State",
    open: "open",
    closed: "closed",
    day_unit: "d",
    levels: ["All is well", "For information", "Attention", "Act now"],
    roles: [
        ("front", "this page, health"),
        ("catalogue", "products and prices"),
        ("orders", "orders"),
        ("events", "live events"),
        ("media", "images and videos"),
        ("care", "pairing and care of devices"),
        ("support", "support (opened on demand)"),
    ],
};

static FRENCH: Words = Words {
    this_box: "Cette box",
    lost: "Cette page ne reçoit plus de réponse de la box : ce que vous voyez est peut-être ancien.",
    footer: "Cette page se renouvelle toutes les 5 secondes.",
    what_waits: "Ce qui attend",
    nothing_waits: "Rien n’attend.",
    orders_wait: ("commande pour un appareil", "commandes pour un appareil"),
    messages_wait: ("message pour la plateforme", "messages pour la plateforme"),
    parked_wait: (
        "message mis de côté pour l’assistance",
        "messages mis de côté pour l’assistance",
    ),
    whom_to_call: "Qui appeler",
    no_contact: "Aucun contact n’est défini pour ce magasin.",
    orders: "Commandes",
    waiting: "En attente d’un appareil",
    accepted: "Prises par un appareil",
    in_progress: "En cours",
    ready: "Prêtes",
    to_send: "À envoyer à la plateforme",
    parked: "Mises de côté",
    last_heard: "Dernières données",
    never: "pas encore",
    catalogue: "Catalogue",
    complete: "complet",
    filling: "en cours de chargement",
    documents: "documents",
    media_held: "Images et vidéos en mémoire",
    devices: "Appareils",
    no_devices: "Aucun appareil n’est encore associé. Le code imprimé sur la box en associe un.",
    present: "présent",
    silent: "silencieux",
    not_heard: "pas de nouvelles depuis le démarrage de la box",
    last_hour: "La dernière heure",
    requests: "Requêtes par minute",
    orders_per_minute: "Commandes par minute",
    at_most: "au plus",
    hour_ago: "il y a 60 min",
    now: "maintenant",
    ports: "Ports de cette box",
    port: "Port",
    role: "Rôle",
    state: "État",
    open: "ouvert",
    closed: "fermé",
    day_unit: "j",
    levels: [
        "Tout va bien",
        "Pour information",
        "Attention",
        "À traiter tout de suite",
    ],
    roles: [
        ("front", "cette page, état de santé"),
        ("catalogue", "produits et prix"),
        ("orders", "commandes"),
        ("events", "événements en direct"),
        ("media", "images et vidéos"),
        ("care", "association et suivi des appareils"),
        ("support", "assistance (ouvert à la demande)"),
    ],
};

impl Words {
    /// A level in a word or two.
    pub const fn level(&self, level: Level) -> &'static str {
        self.levels[level as usize]
    }

    /// What a port is for.
    pub fn port_role(&self, name: &str) -> &'static str {
        let role = self.roles.iter().find(|(port, _)| *port == name);
        role.map_or("", |(_, role)| role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LanPort;

    #[test]
    fn every_port_has_its_words() {
        for port in LanPort::ALL {
            for language in Language::ALL {
                assert!(!words(language).port_role(port.name()).is_empty());
            }
        }
    }
}
