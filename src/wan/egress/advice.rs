//! What a failed request means to people: one sentence for the shop's staff, one action for whoever runs its network.
//!
//! Two readers, two texts. Staff must know whether the shop goes on and whom to tell; the network's administrator must know
//! what to change. What exactly was seen, for support, is the error's evidence and stands beside them, never inside.

use super::{Cause, Evidence};
use crate::language::Sentence;

/// The two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// For the shop's staff.
    pub staff: Sentence,
    /// For whoever runs the shop's network.
    pub action: Sentence,
}

const fn advice(
    staff_en: &'static str,
    staff_fr: &'static str,
    action_en: &'static str,
    action_fr: &'static str,
) -> Advice {
    Advice {
        staff: Sentence {
            en: staff_en,
            fr: staff_fr,
        },
        action: Sentence {
            en: action_en,
            fr: action_fr,
        },
    }
}

impl Cause {
    /// What to say, and what to do.
    #[must_use]
    pub const fn advice(self) -> Advice {
        match self {
            Self::OutsideContract => advice(
                "The box was sent to an address that this shop was not opened for, and did not go there: please call support.",
                "La box a été envoyée vers une adresse pour laquelle ce magasin n'est pas ouvert, et n'y est pas allée : appelez l'assistance.",
                "Nothing to open: the box goes to the hosts on the sheet of `comptoir check --sheet` and to no other. Whoever runs the platform has to correct the address.",
                "Rien à ouvrir : la box va vers les hôtes de la fiche de `comptoir check --sheet` et vers aucun autre. L'exploitant de la plateforme doit corriger l'adresse.",
            ),
            Self::NoLink => advice(
                "The box is not connected to the network: check its cable and the network switch.",
                "La box n'est pas reliée au réseau : vérifiez son câble et le commutateur réseau.",
                "Give the box a link, an address and a default route; its addresses are on the sheet of `comptoir check --sheet`.",
                "Donnez à la box un lien, une adresse et une route par défaut ; ses adresses figurent sur la fiche de `comptoir check --sheet`.",
            ),
            Self::Dns => advice(
                "The shop's network does not find the platform's address.",
                "Le réseau du magasin ne trouve pas l'adresse de la plateforme.",
                "Let the name server that DHCP hands to the box answer for this host, or set the shop's proxy, which then looks names up itself.",
                "Faites répondre, pour cet hôte, le serveur DNS que le DHCP donne à la box, ou renseignez le proxy du magasin, qui résout alors les noms lui-même.",
            ),
            Self::ResolveTimeout => advice(
                "The shop's network is too slow to find the platform's address.",
                "Le réseau du magasin met trop de temps à trouver l'adresse de la plateforme.",
                "The name server that DHCP hands to the box does not answer in time: check that it is reachable from the box's network.",
                "Le serveur DNS que le DHCP donne à la box ne répond pas à temps : vérifiez qu'il est joignable depuis le réseau de la box.",
            ),
            Self::TcpRefused => advice(
                "The way to the internet is refused. The shop goes on with what the box holds.",
                "L'accès à internet est refusé. Le magasin continue avec ce que contient la box.",
                "A firewall rejects the connection: allow TCP 443 from the box to this host.",
                "Un pare-feu rejette la connexion : autorisez le port TCP 443 de la box vers cet hôte.",
            ),
            Self::TcpTimeout => advice(
                "Nothing answers on the way to the internet. The shop goes on with what the box holds.",
                "Rien ne répond sur le chemin d'internet. Le magasin continue avec ce que contient la box.",
                "A firewall drops the connection or the line is down: allow TCP 443 from the box to this host, or set the shop's proxy.",
                "Un pare-feu ignore la connexion ou la ligne est coupée : autorisez le port TCP 443 de la box vers cet hôte, ou renseignez le proxy du magasin.",
            ),
            Self::ConnectionLost => advice(
                "The connection to the platform breaks off. The box tries again by itself.",
                "La connexion à la plateforme s'interrompt. La box réessaie d'elle-même.",
                "Something cuts the connection on its way: look at the line's quality and at the idle timeouts of firewall and proxy (90 s or more).",
                "Quelque chose coupe la connexion en chemin : vérifiez la qualité de la ligne et les délais d'inactivité du pare-feu et du proxy (90 s au moins).",
            ),
            Self::ProxyUnreachable => advice(
                "The shop's proxy can't be reached. The shop goes on with what the box holds.",
                "Le proxy du magasin est injoignable. Le magasin continue avec ce que contient la box.",
                "Check the proxy's address and port in the box's settings, that the proxy runs, and that the box may connect to it.",
                "Vérifiez l'adresse et le port du proxy dans les réglages de la box, que le proxy fonctionne et que la box peut s'y connecter.",
            ),
            Self::ProxyTimeout => advice(
                "The shop's proxy does not answer. The shop goes on with what the box holds.",
                "Le proxy du magasin ne répond pas. Le magasin continue avec ce que contient la box.",
                "The proxy takes the connection but does not answer CONNECT: check that this port speaks HTTP and that the proxy reaches the internet.",
                "Le proxy accepte la connexion mais ne répond pas à CONNECT : vérifiez que ce port parle HTTP et que le proxy accède à internet.",
            ),
            Self::ProxyAuth => advice(
                "The shop's proxy refuses the box's user name or password.",
                "Le proxy du magasin refuse l'identifiant ou le mot de passe de la box.",
                "Set wan.proxy.user and wan.proxy.password to an account that the proxy accepts, or let the box through without one.",
                "Renseignez dans wan.proxy.user et wan.proxy.password un compte que le proxy accepte, ou laissez passer la box sans compte.",
            ),
            Self::ProxyDenied => advice(
                "The shop's proxy forbids the way to the platform.",
                "Le proxy du magasin interdit l'accès à la plateforme.",
                "Allow CONNECT to this host, port 443, for the box in the proxy's rules.",
                "Autorisez CONNECT vers cet hôte, port 443, pour la box dans les règles du proxy.",
            ),
            Self::ProxyFailed => advice(
                "The shop's proxy does not reach the platform.",
                "Le proxy du magasin n'atteint pas la plateforme.",
                "The proxy itself can't open the connection: check its name server, its line and the firewall behind it for this host, port 443.",
                "Le proxy lui-même n'ouvre pas la connexion : vérifiez son serveur DNS, sa ligne et le pare-feu derrière lui pour cet hôte, port 443.",
            ),
            Self::TlsUnknownIssuer => advice(
                "Whoever answers in the platform's place can't prove who he is, and the box does not accept that.",
                "Celui qui répond à la place de la plateforme ne prouve pas son identité, et la box ne l'accepte pas.",
                "Let this host, port 443, reach the platform itself; if an authority of the company's own signs here, give the box its certificate (PEM file, wan.trust.ca_files).",
                "Laissez cet hôte, port 443, joindre la plateforme elle-même ; si une autorité propre à l'entreprise signe ici, fournissez son certificat à la box (fichier PEM, wan.trust.ca_files).",
            ),
            Self::TlsExpired => advice(
                "A certificate on the way to the platform has expired, or the box's date is wrong.",
                "Un certificat sur le chemin de la plateforme a expiré, ou la date de la box est fausse.",
                "If the certificate is that of an inspecting proxy, renew it there; if it is the platform's, call support.",
                "Si le certificat est celui d'un proxy qui inspecte, renouvelez-le sur ce proxy ; si c'est celui de la plateforme, appelez l'assistance.",
            ),
            Self::TlsNotYetValid => advice(
                "The box's date is probably wrong: certificates seem to be of the future.",
                "La date de la box est probablement fausse : les certificats lui paraissent venir du futur.",
                "Nothing to open: the box takes its time from the platform. If an inspecting proxy makes the certificate, check that proxy's clock.",
                "Rien à ouvrir : la box prend l'heure auprès de la plateforme. Si un proxy qui inspecte fabrique le certificat, vérifiez l'horloge de ce proxy.",
            ),
            Self::TlsWrongHost => advice(
                "Somebody else answers in the platform's place, as a login page of a network does.",
                "Un autre répond à la place de la plateforme, comme le fait la page de connexion d'un réseau.",
                "Let the box through the network's login page (by its MAC address), or take this host out of redirection and filtering.",
                "Dispensez la box (par son adresse MAC) de la page de connexion du réseau, ou excluez cet hôte des redirections et du filtrage.",
            ),
            Self::TlsRevoked => advice(
                "The certificate of whoever answers was withdrawn: please call support.",
                "Le certificat de celui qui répond a été révoqué : appelez l'assistance.",
                "If an inspecting proxy answers, give it a certificate that is valid; otherwise call support.",
                "Si un proxy qui inspecte répond, donnez-lui un certificat valable ; sinon, appelez l'assistance.",
            ),
            Self::TlsTimeout => advice(
                "The secure connection to the platform does not come about.",
                "La connexion sécurisée à la plateforme ne s'établit pas.",
                "TCP is open, but TLS gets no answer: look for a filter that swallows TLS to this host, or a path with too small an MTU.",
                "TCP est ouvert, mais TLS reste sans réponse : cherchez un filtre qui avale TLS vers cet hôte, ou un chemin au MTU trop petit.",
            ),
            Self::TlsOther => advice(
                "No secure connection to the platform can be made.",
                "Aucune connexion sécurisée à la plateforme n'est possible.",
                "Whoever answers on port 443 speaks no TLS 1.2 or later: look for a filter, a login page or an old inspecting proxy on the way.",
                "Ce qui répond sur le port 443 ne parle ni TLS 1.2 ni plus récent : cherchez un filtre, une page de connexion ou un ancien proxy qui inspecte.",
            ),
            Self::SendTimeout => advice(
                "The line is too slow to send anything. The box tries again by itself.",
                "La ligne est trop lente pour envoyer quoi que ce soit. La box réessaie d'elle-même.",
                "Look at the line's upload rate and losses, and at what else uses it.",
                "Vérifiez le débit montant et les pertes de la ligne, et ce qui l'occupe par ailleurs.",
            ),
            Self::FirstByteTimeout => advice(
                "The platform takes too long to answer. The box tries again by itself.",
                "La plateforme met trop de temps à répondre. La box réessaie d'elle-même.",
                "If other hosts answer quickly, there is nothing to do here; an inspecting proxy that holds answers back must let this host through.",
                "Si les autres hôtes répondent vite, il n'y a rien à faire ici ; un proxy qui inspecte et retient les réponses doit laisser passer cet hôte.",
            ),
            Self::Stalled => advice(
                "The transfer stands still. The box goes on from there by itself.",
                "Le transfert est à l'arrêt. La box le reprend d'elle-même.",
                "Look at the line's losses, and at a proxy that keeps whole files back to scan them: let this host's media through.",
                "Vérifiez les pertes de la ligne, ainsi que tout proxy qui retient les fichiers entiers pour les analyser : laissez passer les médias de cet hôte.",
            ),
            Self::Throttled => advice(
                "The platform asks the box to slow down. It goes on by itself.",
                "La plateforme demande à la box de ralentir. Tout reprend de soi-même.",
                "Nothing to do in the shop's network.",
                "Rien à faire sur le réseau du magasin.",
            ),
            Self::Server => advice(
                "The platform has a fault. The shop goes on with what the box holds.",
                "La plateforme est en panne. Le magasin continue avec ce que contient la box.",
                "Nothing to do in the shop's network, unless a proxy or filter made this answer in the platform's place.",
                "Rien à faire sur le réseau du magasin, sauf si un proxy ou un filtre a répondu à la place de la plateforme.",
            ),
            Self::Unauthorized => advice(
                "The platform refuses this box's credentials: please call support.",
                "La plateforme refuse les identifiants de cette box : appelez l'assistance.",
                "Nothing to do in the shop's network: the way is open, the box's registration is not in order.",
                "Rien à faire sur le réseau du magasin : le chemin est ouvert, c'est le rattachement de la box qui n'est pas en règle.",
            ),
            Self::Forbidden => advice(
                "The platform does not allow this box what it asks for: please call support.",
                "La plateforme n'autorise pas cette box à faire ce qu'elle demande : appelez l'assistance.",
                "If a filter answers in the platform's place, allow this host; otherwise there is nothing to do in the shop's network.",
                "Si un filtre répond à la place de la plateforme, autorisez cet hôte ; sinon, il n'y a rien à faire sur le réseau du magasin.",
            ),
            Self::NotFound | Self::Gone | Self::Refused | Self::TooLarge => advice(
                "The platform and this box do not understand each other: please call support.",
                "La plateforme et cette box ne se comprennent pas : appelez l'assistance.",
                "Nothing to do in the shop's network.",
                "Rien à faire sur le réseau du magasin.",
            ),
            Self::CaptivePortal | Self::Redirected => advice(
                "The network asks for a login on a web page before it lets the box out.",
                "Le réseau demande de se connecter sur une page web avant de laisser sortir la box.",
                "Let the box through the network's login page (by its MAC address): it has no screen to log in with.",
                "Dispensez la box (par son adresse MAC) de la page de connexion du réseau : elle n'a pas d'écran pour s'y connecter.",
            ),
            Self::ClockSkew => advice(
                "The box's date is wrong; it sets itself as soon as the platform answers.",
                "La date de la box est fausse ; elle se règle dès que la plateforme répond.",
                "Nothing to open, no NTP is needed. If an inspecting proxy makes the certificates, check that proxy's clock too.",
                "Rien à ouvrir, aucun NTP n'est nécessaire. Si un proxy qui inspecte fabrique les certificats, vérifiez aussi son horloge.",
            ),
            Self::ProxyDigestOnly => advice(
                "The shop's proxy asks for a kind of login that the box does not have.",
                "Le proxy du magasin demande un type d'authentification que la box n'a pas.",
                "The proxy takes Digest only: let it offer Basic to the box, or let the box through without an account (by its address).",
                "Le proxy n'accepte que Digest : proposez Basic à la box, ou laissez-la passer sans compte (par son adresse).",
            ),
            Self::ProxyNtlmOnly => advice(
                "The shop's proxy asks for a Windows login, which the box does not have.",
                "Le proxy du magasin demande une authentification Windows, que la box n'a pas.",
                "The proxy takes NTLM or Kerberos only: let it offer Basic to the box, or let the box through without an account (by its address).",
                "Le proxy n'accepte que NTLM ou Kerberos : proposez Basic à la box, ou laissez-la passer sans compte (par son adresse).",
            ),
            Self::ProxyScheme => advice(
                "The shop's proxy is of a kind that the box does not know.",
                "Le proxy du magasin est d'un type que la box ne connaît pas.",
                "The box takes http://, https:// and socks5:// proxies with a fixed address, without or with Basic login; no PAC file.",
                "La box accepte les proxys http://, https:// et socks5:// à adresse fixe, sans ou avec authentification Basic ; pas de fichier PAC.",
            ),
            Self::TlsIntercepted => advice(
                "Somebody on the way opens the box's secure connections, and the box does not accept that.",
                "Un équipement intermédiaire ouvre les connexions sécurisées de la box, et la box ne l'accepte pas.",
                "Take this host out of TLS inspection, or give the box the inspecting authority's certificate (PEM file, wan.trust.ca_files).",
                "Excluez cet hôte de l'inspection TLS, ou fournissez à la box le certificat de l'autorité qui inspecte (fichier PEM, wan.trust.ca_files).",
            ),
            Self::TlsBadCertificate => advice(
                "Whoever answers in the platform's place shows a certificate that is not in order.",
                "Celui qui répond à la place de la plateforme présente un certificat non conforme.",
                "If an inspecting proxy makes the certificate, correct it there (version 3, host name as alternative name, a signature of today) or take this host out of inspection.",
                "Si un proxy qui inspecte fabrique le certificat, corrigez-le sur ce proxy (version 3, nom d'hôte en nom alternatif, signature actuelle) ou excluez cet hôte de l'inspection.",
            ),
            Self::TlsTooOld => advice(
                "Something old on the way keeps the box from a secure connection.",
                "Un équipement ancien sur le chemin empêche la connexion sécurisée de la box.",
                "Whoever answers speaks no TLS 1.2 or later: update the inspecting proxy or filter, or take this host out of it.",
                "Ce qui répond ne parle ni TLS 1.2 ni plus récent : mettez à jour le proxy ou le filtre qui inspecte, ou excluez-en cet hôte.",
            ),
            Self::TlsCut => advice(
                "Something on the way cuts the connection as soon as it is being secured.",
                "Un équipement sur le chemin coupe la connexion dès qu'elle se sécurise.",
                "A filter looks at the host's name in TLS and resets the connection: allow this host, port 443.",
                "Un filtre lit le nom de l'hôte dans TLS et coupe la connexion : autorisez cet hôte, port 443.",
            ),
            Self::TotalTimeout | Self::Slow => advice(
                "The line is too slow. The box goes on from where it stopped by itself.",
                "La ligne est trop lente. La box reprend d'elle-même là où elle s'est arrêtée.",
                "Look at the line's rate and losses, and at what else uses it.",
                "Vérifiez le débit et les pertes de la ligne, et ce qui l'occupe par ailleurs.",
            ),
            Self::SasExpired => advice(
                "The box's access has run out, or its date is wrong. It asks for a new one by itself.",
                "L'accès de la box est arrivé à échéance, ou sa date est fausse. Elle en redemande un d'elle-même.",
                "Nothing to do in the shop's network.",
                "Rien à faire sur le réseau du magasin.",
            ),
            Self::Quota => advice(
                "The platform has no room left for this shop's messages: please call support.",
                "La plateforme n'a plus de place pour les messages de ce magasin : appelez l'assistance.",
                "Nothing to do in the shop's network.",
                "Rien à faire sur le réseau du magasin.",
            ),
            Self::BadAnswer => advice(
                "Something else than the platform answers.",
                "Autre chose que la plateforme répond.",
                "A filter or a login page answers in this host's place: allow this host, port 443, without filtering.",
                "Un filtre ou une page de connexion répond à la place de cet hôte : autorisez cet hôte, port 443, sans filtrage.",
            ),
            Self::Stopped => advice(
                "The box ended this itself.",
                "La box y a mis fin elle-même.",
                "Nothing to do in the shop's network.",
                "Rien à faire sur le réseau du magasin.",
            ),
        }
    }
}

/// What was seen, each with its name, for support.
#[must_use]
pub fn proofs(evidence: &Evidence) -> Vec<(Sentence, String)> {
    let list = |texts: &[String]| (!texts.is_empty()).then(|| texts.join(", "));
    let seen = [
        (
            "certificate issued by",
            "certificat émis par",
            evidence.issuer.clone(),
        ),
        ("certificate of", "certificat de", evidence.subject.clone()),
        (
            "certificate's names",
            "noms du certificat",
            list(&evidence.names),
        ),
        (
            "box's clock ahead by",
            "avance de l'horloge de la box",
            evidence.skew_s.map(|skew_s| format!("{skew_s:+} s")),
        ),
        (
            "the proxy says",
            "le proxy dit",
            evidence.proxy_said.clone(),
        ),
        (
            "the proxy's logins",
            "authentifications du proxy",
            list(&evidence.proxy_schemes),
        ),
        ("leads to", "mène à", evidence.led_to.clone()),
        (
            "HTTP status",
            "statut HTTP",
            evidence.status.map(|status| status.to_string()),
        ),
        ("host's code", "code de l'hôte", evidence.host_code.clone()),
    ];
    seen.into_iter()
        .filter_map(|(en, fr, value)| Some((Sentence { en, fr }, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_four_whole_sentences() {
        for cause in Cause::ALL {
            let Advice { staff, action } = cause.advice();
            for text in [staff.en, staff.fr, action.en, action.fr] {
                assert!(text.ends_with('.') && text.len() > 20, "{cause:?}: {text}");
                assert!(!text.contains("  "), "{cause:?}: {text}");
            }
            assert_ne!(staff.en, staff.fr);
            assert_ne!(action.en, action.fr);
            // French high punctuation stands behind a space, which is then set as one that does not break.
            for text in [staff.fr, action.fr] {
                for (at, mark) in text.match_indices([':', ';', '?', '!']) {
                    let fits = text[..at].ends_with(' ') || text[at..].starts_with("://");
                    assert!(fits, "{cause:?}: {mark} in {text}");
                }
            }
        }
    }
}
