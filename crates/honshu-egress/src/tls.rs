//! The TLS client configuration: the system's trust anchors and the operator's own, TLS 1.2 and 1.3.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// Built at the first encrypted connection: reading the system's certificates takes tens of milliseconds, which a
/// start without any `https` target should not pay.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    extra_roots: Vec<CertificateDer<'static>>,
    built: OnceLock<Result<Arc<ClientConfig>, NoTls>>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoTls {
    #[error(
        "no trusted certificates found; install the system's `ca-certificates` or set `SSL_CERT_FILE`"
    )]
    NoRoots,
    #[error("{0}")]
    Rustls(rustls::Error),
}

impl TlsConfig {
    pub(crate) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self {
            extra_roots,
            built: OnceLock::new(),
        }
    }

    /// The configuration. Blocks on the first call.
    pub(crate) fn get(&self) -> Result<Arc<ClientConfig>, NoTls> {
        self.built.get_or_init(|| self.build()).clone()
    }

    fn build(&self) -> Result<Arc<ClientConfig>, NoTls> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a trusted certificate of the system cannot be read");
        }
        let (_, unusable) = roots.add_parsable_certificates(native.certs);
        if unusable > 0 {
            tracing::debug!(
                unusable,
                "certificates of the system that the TLS library cannot use"
            );
        }
        for root in &self.extra_roots {
            roots.add(root.clone()).map_err(NoTls::Rustls)?;
        }
        if roots.is_empty() {
            return Err(NoTls::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(NoTls::Rustls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
