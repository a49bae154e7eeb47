//! TLS by what a binding names: a CA, or one server key. Nothing of the system's is trusted.
//!
//! Owns: [`client_config`].
//! Promises: with a CA, the chain, the host's name and the validity are checked by webpki against
//! this CA alone. With a pin, the server must prove possession of the very key whose
//! SubjectPublicKeyInfo (RFC 5280 section 4.1) has the pinned SHA-256; the chain, the name and the
//! validity are then **not** looked at, since the key itself is what an officer approved. Plain
//! http gets a configuration that trusts nobody, so that it can never serve https by mistake.
//! Does not: present client certificates, keep a key log, or read the environment.

use std::sync::{Arc, LazyLock};

use mcpist_core::binding::Trust;
use mcpist_core::ids::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use thiserror::Error;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// Why a binding's trust cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TrustError {
    /// The CA's PEM holds no certificate, or one that does not parse.
    #[error("the binding's CA is no PEM text of certificates; put the binding again with one")]
    Ca,
    /// rustls does not take the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// The client side of TLS for one binding.
///
/// # Errors
/// [`TrustError`] when the CA does not parse.
pub(super) fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?;
    Ok(match trust {
        Trust::Ca(pem) => builder
            .with_root_certificates(roots(pem)?)
            .with_no_client_auth(),
        Trust::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(*pin)))
            .with_no_client_auth(),
        Trust::None => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    })
}

fn roots(pem: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots
            .add(certificate.map_err(|_| TrustError::Ca)?)
            .map_err(|_| TrustError::Ca)?;
    }
    match roots.is_empty() {
        true => Err(TrustError::Ca),
        false => Ok(roots),
    }
}

/// Takes the one key with this digest.
#[derive(Debug)]
struct Pinned(Digest);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        match Digest::of(&certificate.subject_public_key_info()) == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}
