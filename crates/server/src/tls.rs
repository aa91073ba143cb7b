//! TLS on both ports. The files are read again when they change, so that certificates are renewed
//! without a restart; connections that are there stay as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::authn::{Mtls, Peer};
use crate::config::{MtlsConfig, TlsConfig};
use crate::private_file;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// TLS as the files say it now. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsConfig,
    mtls: Option<Mtls>,
    current: RwLock<Current>,
}

struct Current {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub fn open(files: &TlsConfig, mtls: Option<&MtlsConfig>) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            files: files.clone(),
            mtls: mtls.map(Mtls::new),
            current: RwLock::new(Current::read(files)?),
        })))
    }

    /// What the next connection is accepted with.
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let current = self.0.current.read();
        match protocol {
            Protocol::Grpc => current.grpc.clone(),
            Protocol::Http => current.http.clone(),
        }
    }

    /// Whose a connection with these certificates is.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Peer {
        let certificate = certificates.and_then(<[_]>::first);
        match (&self.0.mtls, certificate) {
            (Some(mtls), Some(certificate)) => mtls.peer(certificate),
            _ => Peer::default(),
        }
    }

    /// Reads the files again when they change, for ever. What cannot be read leaves it as it was.
    pub async fn follow_files(self) {
        let mut seen = self.0.fingerprint();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.0.fingerprint();
            if now == seen {
                continue;
            }
            seen = now;
            match Current::read(&self.0.files) {
                Ok(current) => {
                    *self.0.current.write() = current;
                    tracing::info!("the certificates were read again");
                }
                Err(error) => {
                    tracing::error!(
                        error,
                        "the new certificates cannot be used: the old ones stay"
                    );
                }
            }
        }
    }
}

impl Inner {
    /// Changes when a file does.
    fn fingerprint(&self) -> Vec<Option<(SystemTime, u64)>> {
        let files = [
            Some(&self.files.cert),
            Some(&self.files.key),
            self.files.client_ca.as_ref(),
        ];
        let of = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        files.into_iter().flatten().map(of).collect()
    }
}

impl Current {
    fn read(files: &TlsConfig) -> Result<Self, String> {
        let chain = certificates(&files.cert)?;
        let text = private_file::read(&files.key)?;
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", files.key.display());
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| failed(&error))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &files.client_ca {
            Some(ca) => builder.with_client_cert_verifier(verifier(ca, files, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| failed(&error))?;
        if files.client_ca.is_some() {
            // A session that goes on would not show its certificate again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            grpc: speaking(b"h2"),
            http: speaking(b"http/1.1"),
        })
    }
}

fn verifier(
    ca: &Path,
    files: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !files.require_client_cert {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|error| failed(&error))?;
    Ok(verifier)
}

/// The certificates in a file, of which there has to be one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let found: Vec<_> = found
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&error))?;
    match found.is_empty() {
        true => Err(failed(&"no certificate")),
        false => Ok(found),
    }
}
