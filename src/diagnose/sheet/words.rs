//! What each line of the sheet is for, and what happens while it is closed.

use crate::config::LanPort;
use crate::language::Sentence;
use crate::wan::contract::FlowId;

/// What is missing in the shop without the flow.
pub(super) const fn without(flow: FlowId) -> Sentence {
    match flow {
        FlowId::Api => Sentence {
            en: "no new prices, stock or products, no updates of the box; the shop lives on what the box holds",
            fr: "plus de nouveaux prix, stocks ni produits, plus de mises à jour de la box ; le magasin vit sur ce que contient la box",
        },
        FlowId::Bus => Sentence {
            en: "orders placed on the internet come later, by the way of the data",
            fr: "les commandes passées sur internet arrivent plus tard, par la voie des données",
        },
        FlowId::Media => Sentence {
            en: "no new images and videos on the screens",
            fr: "pas de nouvelles images ni vidéos sur les écrans",
        },
        FlowId::Logs => Sentence {
            en: "support has to ask the shop instead of seeing for itself",
            fr: "l'assistance doit interroger le magasin au lieu de voir par elle-même",
        },
        FlowId::Support => Sentence {
            en: "support learns of faults when the shop calls",
            fr: "l'assistance n'apprend les pannes que lorsque le magasin appelle",
        },
    }
}

const fn pair(
    purpose: (&'static str, &'static str),
    without: (&'static str, &'static str),
) -> (Sentence, Sentence) {
    (
        Sentence {
            en: purpose.0,
            fr: purpose.1,
        },
        Sentence {
            en: without.0,
            fr: without.1,
        },
    )
}

/// What a port of the box is for, and what is missing without it.
pub(super) const fn of_port(port: LanPort) -> (Sentence, Sentence) {
    match port {
        LanPort::Front => pair(
            (
                "the box's page for staff, its health",
                "la page de la box pour le personnel, son état",
            ),
            (
                "nobody sees how the box is",
                "personne ne voit l'état de la box",
            ),
        ),
        LanPort::Catalogue => pair(
            ("products, prices, stock", "produits, prix, stocks"),
            (
                "kiosks and tills show no products",
                "bornes et caisses n'affichent aucun produit",
            ),
        ),
        LanPort::Orders => pair(
            ("orders", "commandes"),
            (
                "devices can't submit or finish orders",
                "les appareils ne peuvent ni passer ni terminer de commandes",
            ),
        ),
        LanPort::Events => pair(
            ("live events", "événements en direct"),
            (
                "screens learn of changes late",
                "les écrans apprennent les changements en retard",
            ),
        ),
        LanPort::Media => pair(
            ("images and videos", "images et vidéos"),
            (
                "screens stay without images",
                "les écrans restent sans images",
            ),
        ),
        LanPort::Care => pair(
            (
                "pairing and watching over devices",
                "association et suivi des appareils",
            ),
            (
                "no device can be paired",
                "aucun appareil ne peut être associé",
            ),
        ),
        LanPort::Support => pair(
            (
                "support, opened on demand",
                "assistance, ouvert à la demande",
            ),
            (
                "support can't look into the box from the shop",
                "l'assistance ne peut pas examiner la box depuis le magasin",
            ),
        ),
    }
}
