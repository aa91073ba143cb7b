//! Certificates of clients, as TLS has verified them: a SPIFFE ID, or the subject's common name.

use std::sync::Arc;

use steadfast_engine::time::SECOND;
use steadfast_runtime::Kind;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::Identity;
use crate::config::MtlsConfig;

const METHOD: &str = "mtls";

/// The issuer of common names: whoever `tls.client_ca` has.
const X509: &str = "x509";

/// Who certificates are of.
#[derive(Clone, Debug)]
pub struct Mtls(MtlsConfig);

/// Whose a connection is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peer(Option<Result<Arc<Identity>, String>>);

impl Peer {
    /// Who it is, or why its certificate does not say.
    pub(super) fn identity(&self) -> Option<&Result<Arc<Identity>, String>> {
        self.0.as_ref()
    }
}

impl Mtls {
    /// As configured.
    pub fn new(config: &MtlsConfig) -> Self {
        Self(config.clone())
    }

    /// Whose the connection with a verified certificate (DER) is.
    pub fn peer(&self, certificate: &[u8]) -> Peer {
        Peer(Some(self.identify(certificate).map(Arc::new)))
    }

    fn identify(&self, certificate: &[u8]) -> Result<Identity, String> {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| "the client certificate cannot be read")?;
        let (issuer, id) = match self.spiffe_id(&certificate)? {
            Some((domain, id)) => (format!("spiffe://{domain}"), id),
            None => (X509.to_owned(), common_name(&certificate)?),
        };
        let mut groups = self.0.groups.get(&id).cloned().unwrap_or_default();
        if self.0.groups_from_ou {
            for unit in certificate.subject().iter_organizational_unit() {
                let unit = unit
                    .as_str()
                    .map_err(|_| "the client certificate has no readable OU")?;
                groups.push(unit.to_owned());
            }
        }
        let kind = self.0.kind.map_or(Kind::Service, Kind::from);
        let mut identity = Identity::new(METHOD, &issuer, &id, kind, groups)
            .map_err(|error| format!("the client certificate is refused: {error}"))?;
        let not_after = certificate.validity().not_after.timestamp();
        identity.expires = Some(not_after.saturating_mul(SECOND));
        Ok(identity)
    }

    /// The trust domain and the whole SPIFFE ID, where there is one.
    fn spiffe_id(
        &self,
        certificate: &X509Certificate<'_>,
    ) -> Result<Option<(String, String)>, String> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| "the client certificate's alternative names cannot be read")?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut ids = names.filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://").map(|rest| (*uri, rest)),
            _ => None,
        });
        let (id, more) = (ids.next(), ids.next());
        if more.is_some() {
            return Err("the client certificate has several SPIFFE IDs".into());
        }
        let Some((id, rest)) = id else {
            return match &self.0.trust_domain {
                Some(_) => Err("the client certificate has no SPIFFE ID".into()),
                None => Ok(None),
            };
        };
        let domain = rest.split('/').next().unwrap_or_default();
        let is_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if domain.is_empty() || !domain.bytes().all(is_domain) {
            return Err("the client certificate's SPIFFE ID names no trust domain".into());
        }
        if self.0.trust_domain.as_ref().is_some_and(|of| of != domain) {
            return Err("the client certificate is of another trust domain".into());
        }
        Ok(Some((domain.to_owned(), id.to_owned())))
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<String, String> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next().map(|name| name.as_str()), names.next()) {
        (Some(Ok(name)), None) => Ok(name.to_owned()),
        _ => Err("the client certificate has neither a SPIFFE ID nor one common name".into()),
    }
}
