//! Reading Secrets that hold certificates: only whether they could serve, never what they hold.

use k8s_openapi::api::core::v1::Secret;

/// Whether a Secret of type `kubernetes.io/tls` could serve; what is wrong with it otherwise.
///
/// Both keys must hold PEM (RFC 7468) whose body is base64 of something that begins as DER does.
/// Whoever ends TLS with it checks the rest.
pub(super) fn read(secret: &Secret) -> Result<(), String> {
    if secret.type_.as_deref() != Some("kubernetes.io/tls") {
        return Err("is not of type kubernetes.io/tls".to_owned());
    }
    let data = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|it| it.get(key)).map(|it| it.0.as_slice());
        let text = secret.string_data.as_ref().and_then(|it| it.get(key)).map(String::as_bytes);
        bytes.or(text).ok_or_else(|| format!("has no `{key}`"))
    };
    let (certificate, key) = (data("tls.crt")?, data("tls.key")?);
    if !holds(certificate, |it| it == "CERTIFICATE") {
        return Err("has no PEM certificate in `tls.crt`".to_owned());
    }
    if !holds(key, |it| it.ends_with("PRIVATE KEY")) {
        return Err("has no PEM private key in `tls.key`".to_owned());
    }
    Ok(())
}

/// Whether PEM text holds a block with such a label, and every block of it is sound.
fn holds(pem: &[u8], label: impl Fn(&str) -> bool) -> bool {
    let Ok(text) = std::str::from_utf8(pem) else { return false };
    let mut lines = text.lines().map(str::trim_end);
    let mut found = false;
    while let Some(line) = lines.next() {
        let Some(own) = line.strip_prefix("-----BEGIN ").and_then(|it| it.strip_suffix("-----"))
        else {
            continue;
        };
        let end = format!("-----END {own}-----");
        let mut body = String::new();
        loop {
            match lines.next() {
                None => return false,
                Some(line) if line == end => break,
                Some(line) => body.push_str(line),
            }
        }
        if label(own) {
            found |= is_der(&body);
        }
    }
    found
}

/// Whether base64 text begins as a DER sequence does: `0x30` and a length.
fn is_der(base64: &str) -> bool {
    let alphabet = |it: u8| it.is_ascii_alphanumeric() || b"+/".contains(&it);
    let body = base64.trim_end_matches('=');
    let padding = base64.len() - body.len();
    base64.len().is_multiple_of(4) && padding <= 2 && body.len() >= 8 && body.bytes().all(alphabet)
        // Six bits a character: `MI` to `MP` and their neighbours stand for a first byte of 0x30.
        && body.starts_with('M')
        && body.as_bytes().get(1).is_some_and(|it| (b'A'..=b'P').contains(it))
}
