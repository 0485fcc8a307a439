//! Certificates: their time, their names, their issuers, the rules they follow.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair, NameConstraints,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::super::tls_peer::{Authority, HOST, Identity, intermediate, leaf, root, serve};
use super::{Table, door, door_with_a_doubted_clock, expired, named, of_the_future};

#[test]
fn what_is_right_passes() {
    let root = root(|_| {});
    let middle = intermediate(&root, "Shop Intermediate", |_| {});
    let mut table = Table::trusting(root.pem());
    table.row("204", "by the root", || leaf(&root, &[], |_| {}));
    table.row("204", "by an intermediate", || {
        leaf(&middle, &[&middle], |_| {})
    });
    table.row("204", "with the chain's root", || {
        leaf(&middle, &[&middle, &root], |_| {})
    });
    table.row("204", "wildcard", || {
        leaf(&root, &[], named(&["*.shop.example"]))
    });
    table.ask_for("10.1.2.3");
    table.row("204", "address", || leaf(&root, &[], named(&["10.1.2.3"])));
    table.end();
    // Whatever is offered beside: the box speaks HTTP/1.1.
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"]] {
        let address = serve(leaf(&root, &[], |_| {}), &[&TLS12, &TLS13], alpn);
        assert_eq!(door(&root.pem(), HOST, address).outcome(), "204");
    }
}

#[test]
fn a_certificate_out_of_its_time_is_refused_wherever_it_stands_in_the_chain() {
    let good = root(|_| {});
    let old = intermediate(&good, "Shop Intermediate", expired);
    let new = intermediate(&good, "Shop Intermediate", of_the_future);
    let mut table = Table::trusting(good.pem());
    table.row("tls_expired", "leaf", || leaf(&good, &[], expired));
    table.row("tls_expired", "intermediate", || {
        leaf(&old, &[&old], |_| {})
    });
    let not_yet = "tls_not_yet_valid";
    table.row(not_yet, "leaf", || leaf(&good, &[], of_the_future));
    table.row(not_yet, "intermediate", || leaf(&new, &[&new], |_| {}));
    table.end();
    let (old, new) = (root(expired), root(of_the_future));
    let mut table = Table::trusting(old.pem());
    table.row("tls_expired", "root", || leaf(&old, &[], |_| {}));
    table.end();
    let mut table = Table::trusting(new.pem());
    table.row(not_yet, "root", || leaf(&new, &[], |_| {}));
    table.end();
    // A root that does not hold spoils nothing that another one signed.
    let mut table = Table::trusting(format!("{}{}", old.pem(), good.pem()));
    table.row("204", "beside an old root", || leaf(&good, &[], |_| {}));
    table.end();
}

#[test]
fn a_certificate_for_somebody_else_is_refused() {
    let root = root(|_| {});
    let mut table = Table::trusting(root.pem());
    let wrong = "tls_wrong_host";
    for (what, names) in [
        ("another host", &["www.shop.example"][..]),
        ("the proxy's own name", &["127.0.0.1", "proxy.shop.example"]),
        ("a wildcard over two labels", &["*.example"]),
        ("a wildcard over everything", &["*"]),
        ("a wildcard inside a label", &["a*.shop.example"]),
        ("a NUL in the name", &["api.shop.example\0.evil.example"]),
        ("a dot behind the name", &["api.shop.example."]),
    ] {
        table.row(wrong, what, || leaf(&root, &[], named(names)));
    }
    // `leaf` gives the host's name as the common name, too.
    table.row(wrong, "common name only", || {
        leaf(&root, &[], |params| params.subject_alt_names.clear())
    });
    table.ask_for("10.1.2.3");
    table.row(wrong, "another address", || {
        leaf(&root, &[], named(&["10.1.2.4", "10.1.2.3.example"]))
    });
    table.end();
}

#[test]
fn an_issuer_nobody_knows_is_told_from_one_who_steps_between() {
    let trusted = root(|_| {});
    let foreign = root(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Mall Inspector");
        name.push(DnType::OrganizationName, "Mall GmbH");
    });
    let middle = intermediate(&trusted, "Shop Intermediate", |_| {});
    // The same names as the trusted one, another key.
    let forged = root(|_| {});
    let mut table = Table::trusting(trusted.pem());
    table.row("tls_intercepted", "for this host, by a stranger", || {
        leaf(&foreign, &[&foreign], |_| {})
    });
    let unknown = "tls_unknown_issuer";
    table.row(unknown, "for another host, by a stranger", || {
        leaf(&foreign, &[], named(&["router.local"]))
    });
    table.row(unknown, "self-signed", self_signed);
    table.row(unknown, "missing intermediate", || {
        leaf(&middle, &[], |_| {})
    });
    table.row(unknown, "forged authority", || leaf(&forged, &[], |_| {}));
    table.end();
    let address = serve(leaf(&foreign, &[], |_| {}), &[&TLS13], &[]);
    let error = door(&trusted.pem(), HOST, address).ask().err().unwrap();
    let evidence = error.evidence();
    let issuer = evidence.issuer.as_deref();
    assert_eq!(issuer, Some("Mall Inspector, Mall GmbH"));
    assert_eq!(evidence.names, [HOST]);
}

fn self_signed() -> Identity {
    let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "router.local");
    let key = KeyPair::generate().unwrap();
    Identity {
        chain: vec![params.self_signed(&key).unwrap().der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

/// `root`'s own certificate and key, as if it were a host.
fn authority_itself(root: &Authority) -> Identity {
    Identity {
        chain: vec![root.der().clone()],
        key: PrivatePkcs8KeyDer::from(root.key().serialize_der()).into(),
    }
}

/// A good leaf whose bytes are changed.
fn altered(root: &Authority, alter: fn(Vec<u8>) -> Vec<u8>) -> Identity {
    let mut identity = leaf(root, &[], |_| {});
    let der = alter(identity.chain[0].to_vec());
    identity.chain = vec![CertificateDer::from(der)];
    identity
}

#[test]
fn a_chain_that_breaks_the_rules_is_refused() {
    let root = root(|_| {});
    let mut table = Table::trusting(root.pem());
    let bad = "tls_bad_certificate";
    let no_ca = intermediate(&root, "Not an Authority", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
    });
    table.row(bad, "a leaf as authority", || {
        leaf(&no_ca, &[&no_ca], |_| {})
    });
    let silent = intermediate(&root, "No Authority Said", |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages.clear();
    });
    table.row(bad, "no word of being an authority", || {
        leaf(&silent, &[&silent], |_| {})
    });
    let short = intermediate(&root, "Short", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let below = intermediate(&short, "Below Short", |_| {});
    table.row(bad, "path too long", || {
        leaf(&below, &[&below, &short], |_| {})
    });
    let elsewhere = intermediate(&root, "Elsewhere Only", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    table.row(bad, "name constraints", || {
        leaf(&elsewhere, &[&elsewhere], |_| {})
    });
    table.row(bad, "for clients only", || {
        leaf(&root, &[], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    });
    table.row(bad, "unknown critical extension", || {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        leaf(&root, &[], |params| {
            params.custom_extensions.push(extension)
        })
    });
    table.row(bad, "an authority as host", || authority_itself(&root));
    table.row(bad, "garbage", || altered(&root, |_| b"no DER".to_vec()));
    table.row(bad, "cut short", || {
        altered(&root, |der| der[..der.len() / 2].to_vec())
    });
    table.row(bad, "bytes behind its end", || {
        altered(&root, |der| [der, vec![0]].concat())
    });
    table.row(bad, "without the key to it", || Identity {
        key: leaf(&root, &[], |_| {}).key,
        ..leaf(&root, &[], |_| {})
    });
    table.end();
}

#[test]
fn what_an_authority_has_taken_back_is_refused() {
    let root = root(|_| {});
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2124, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(vec![7]),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root).unwrap().pem().unwrap();
    let numbered = |number: u8| {
        leaf(&root, &[], |params| {
            params.serial_number = Some(SerialNumber::from(vec![number]));
        })
    };
    let mut table = Table::trusting(format!("{}{list}", root.pem()));
    table.row("tls_revoked", "revoked", || numbered(7));
    table.row("204", "another number", || numbered(8));
    table.end();
    // Without a list nobody knows: none is fetched, for that would be one more flow.
    let mut table = Table::trusting(root.pem());
    table.row("204", "no list", || numbered(7));
    table.end();
}

#[test]
fn with_a_clock_nobody_has_confirmed_a_certificate_out_of_its_time_tells_of_the_clock() {
    let root = root(|_| {});
    for change in [of_the_future as fn(&mut CertificateParams), expired] {
        let address = serve(leaf(&root, &[], change), &[&TLS13], &[]);
        let door = door_with_a_doubted_clock(&root.pem(), HOST, address);
        let error = door.ask().err().unwrap();
        assert_eq!(error.cause.as_str(), "clock_skew", "{error}");
        assert!(error.evidence().skew_s.is_some());
    }
}
