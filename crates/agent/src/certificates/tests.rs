//! What becomes of Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use planner::object::{Change, Object};
use planner::publish::{Backend, Publication, TlsEnd};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tunnel_proto::message::Protocol;

use super::Certificates;

#[test]
fn a_new_certificate_counts_and_the_same_one_changes_nothing() {
    let (first, second) = (pem("a.example.com"), pem("a.example.com"));
    let publication = publication(&["own"]);
    let mut certificates = Certificates::new();
    assert!(certificates.ends(&publication).is_empty(), "there is no certificate yet");

    assert_eq!(certificates.note(&applied("own", &first)), []);
    let one = only(&mut certificates, &publication);
    assert_eq!(certificates.note(&applied("own", &first)), []);
    certificates.note(&Change::Reset(ObjectKind::Secret, vec![secret("own", &first)]));
    let same = only(&mut certificates, &publication);
    assert!(Arc::ptr_eq(&one, &same), "visitors can resume their sessions");

    certificates.note(&applied("own", &second));
    assert!(!Arc::ptr_eq(&one, &only(&mut certificates, &publication)), "renewed");
    certificates.note(&Change::Deleted(name("own")));
    assert!(certificates.ends(&publication).is_empty(), "deleted");
}

#[test]
fn what_cannot_serve_is_told_without_what_it_holds() {
    let (one, other) = (pem("a.example.com"), pem("b.example.com"));
    check(&(one.0.clone(), other.1), "cannot end TLS: keys may not be consistent: KeyMismatch");
    check(&(one.0, "nothing".to_owned()), "has malformed PEM in `tls.key`");
    check(&("nothing".to_owned(), one.1), "has no PEM certificate in `tls.crt`");
}

#[track_caller]
fn check(pem: &(String, String), expected: &str) {
    let refused = Certificates::new().note(&applied("bad", pem));
    assert_eq!(refused, [(name("bad"), expected.to_owned())]);
}

fn only(certificates: &mut Certificates, publication: &Publication) -> Arc<rustls::ServerConfig> {
    let mut ends = certificates.ends(publication);
    ends.pop_first().expect("an end").1
}

/// A publication with a backend before which TLS ends with these certificates.
fn publication(certificates: &[&str]) -> Publication {
    let certificates = certificates.iter().map(|it| name(it)).collect();
    let backend = Backend {
        protocol: Protocol::Tcp,
        alternatives: Vec::new(),
        tls: Some(TlsEnd { certificates, http: true }),
    };
    Publication { backends: [("key".to_owned(), backend)].into(), ..Publication::default() }
}

pub(crate) fn name(secret: &str) -> ObjectRef {
    ObjectRef::namespaced(ObjectKind::Secret, "web", secret)
}

/// A certificate and its key for a name, new each time.
pub(crate) fn pem(host: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    (cert.pem(), signing_key.serialize_pem())
}

pub(crate) fn applied(name: &str, pem: &(String, String)) -> Change {
    Change::Applied(secret(name, pem))
}

fn secret(name: &str, (certificate, key): &(String, String)) -> Object {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [("tls.crt".to_owned(), bytes(certificate)), ("tls.key".to_owned(), bytes(key))];
    Object::Secret(Box::new(Secret {
        metadata: ObjectMeta {
            namespace: Some("web".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from(data)),
        ..Secret::default()
    }))
}
