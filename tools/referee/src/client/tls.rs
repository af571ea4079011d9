//! Whom to trust: the authorities this host trusts, or one certificate whose fingerprint is known.
//!
//! Main thread. No box is trusted because it is nearby: without a fingerprint its certificate needs an authority.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use crate::error::Failure;

pub type Fingerprint = [u8; 32];

/// 64 hexadecimal digits, in pairs with colons if you like, as `openssl x509 -fingerprint -sha256` writes them.
pub fn fingerprint(text: &str) -> Result<Fingerprint, Failure> {
    let refused = || {
        let failure = Failure::usage(format!("{text:?} is no fingerprint"));
        failure.help("give the 64 hexadecimal digits of the certificate's SHA-256, with colons if you like")
    };
    let text = text.trim().to_ascii_lowercase();
    let digits: String =
        text.strip_prefix("sha256:").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    let mut bytes = Fingerprint::default();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused());
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        let pair = digits.get(place * 2..place * 2 + 2).ok_or_else(refused)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
    }
    Ok(bytes)
}

pub fn shown(fingerprint: &[u8]) -> String {
    let mut text = String::new();
    for byte in fingerprint {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What makes connections, by a fingerprint or by the authorities of this host.
pub fn connector(pinned: Option<Fingerprint>) -> Result<TlsConnector, Failure> {
    let failed = |error: Error| Failure::failed(format!("TLS can't be set up: {error}"));
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let config = match pinned {
        Some(pinned) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(pinned, &provider)))
            .with_no_client_auth(),
        None => builder.with_root_certificates(authorities()).with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Those of this host. One that can't be read vouches for nobody.
fn authorities() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// Accepts one certificate, whatever it says of itself.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(fingerprint: Fingerprint, provider: &CryptoProvider) -> Pinned {
        Pinned { fingerprint, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Sha256::digest(certificate);
        match found.as_slice() == self.fingerprint {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General(format!(
                "its certificate has the fingerprint {}, and {} is trusted",
                shown(&found),
                shown(&self.fingerprint)
            ))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_elsewhere() {
        let plain = "00ff".repeat(16);
        let wanted: Fingerprint = [0, 255].repeat(16).try_into().unwrap();
        assert_eq!(fingerprint(&plain), Ok(wanted));
        let pairs: Vec<&str> = std::iter::repeat_n(["00", "FF"], 16).flatten().collect();
        assert_eq!(fingerprint(&pairs.join(":")), Ok(wanted));
        assert_eq!(fingerprint(&format!("SHA256:{plain}")), Ok(wanted));
        for wrong in ["", "00", &"0g".repeat(32), &"é".repeat(32), &"00".repeat(33)] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(&wanted), plain);
    }
}
