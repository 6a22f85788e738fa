//! Certificates: a private authority of our own, one certificate per node, mutual TLS 1.3.
//!
//! A node's certificate carries its region and name as a URI, which nothing but the authority can
//! write: `tandem://region/eu/node/edge-eu-1`. Clients check the DNS name [`server_name`] of the
//! node that they mean to reach, so addresses may change freely.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::config::kind::is_name;

mod pki;

pub use pki::{NodeNames, init_pki};

/// Who a certificate says its owner is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Region.
    pub region: String,
    /// Node name.
    pub node: String,
}

impl Identity {
    /// The URI in the certificate.
    pub fn uri(&self) -> String {
        format!("tandem://region/{}/node/{}", self.region, self.node)
    }

    /// Reads [`Self::uri`].
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (region, node) = uri.strip_prefix("tandem://region/")?.split_once("/node/")?;
        (is_name(region) && is_name(node))
            .then(|| Self { region: region.to_owned(), node: node.to_owned() })
    }

    /// Compares with what a peer claims to be.
    ///
    /// # Errors
    /// [`IdentityError::Mismatch`].
    pub fn require(&self, region: &str, node: &str) -> Result<(), IdentityError> {
        if self.region == region && self.node == node {
            return Ok(());
        }
        let claimed = Self { region: region.to_owned(), node: node.to_owned() };
        Err(IdentityError::Mismatch { certified: self.clone(), claimed })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of region {}", self.node, self.region)
    }
}

/// Why a peer is not who it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate, or one that is not ours to read.
    #[error("the peer showed no usable certificate")]
    NoCertificate,
    /// The certificate has no tandem URI, or more than one.
    #[error("the certificate does not name exactly one node (tandem://region/…/node/…)")]
    NoNode,
    /// The peer claims to be somebody else.
    #[error("the certificate is for {certified}, not for {claimed}")]
    Mismatch {
        /// In the certificate.
        certified: Identity,
        /// In the message.
        claimed: Identity,
    },
}

/// Region and node of a certificate.
///
/// # Errors
/// If it names no node or several.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let parsed =
        webpki::EndEntityCert::try_from(certificate).map_err(|_| IdentityError::NoCertificate)?;
    let mut nodes = parsed.valid_uri_names().filter_map(Identity::from_uri);
    match (nodes.next(), nodes.next()) {
        (Some(identity), None) => Ok(identity),
        _ => Err(IdentityError::NoNode),
    }
}

/// Region and node of the other end of a QUIC connection.
///
/// # Errors
/// If it showed no certificate of a node.
pub fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(IdentityError::NoCertificate)?;
    identity_of(chain.first().ok_or(IdentityError::NoCertificate)?)
}

/// The DNS name in every node's certificate, whatever its addresses are.
pub fn server_name(node: &str) -> String {
    format!("{node}.tandem.internal")
}

/// Where a node's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of this node.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The files that [`init_pki`] wrote for `node` in `folder`.
    pub fn of(folder: &Path, node: &str) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            certificate: folder.join(format!("{node}.pem")),
            key: folder.join(format!("{node}.key")),
        }
    }
}

/// Certificates and key of this node, loaded and checked.
pub struct Tls {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: Identity,
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(files: &TlsFiles) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).with_context(|| files.ca.display().to_string())?;
        }
        let chain = certificates(&files.certificate)?;
        let shown = || files.certificate.display().to_string();
        let identity = identity_of(chain.first().with_context(shown)?).with_context(shown)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .with_context(|| format!("{}: no private key", files.key.display()))?;
        let tls = Self { roots: Arc::new(roots), chain, key, identity };
        // Finds a key that does not belong to the certificate.
        tls.client_config(b"").with_context(shown)?;
        Ok(tls)
    }

    /// Who our own certificate says that we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For the side that accepts connections: peers must show a certificate of our authority.
    ///
    /// # Errors
    /// If key and certificate do not fit together.
    pub fn server_config(&self, alpn: &[u8]) -> anyhow::Result<rustls::ServerConfig> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
                .build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// For the side that connects.
    ///
    /// # Errors
    /// If key and certificate do not fit together.
    pub fn client_config(&self, alpn: &[u8]) -> anyhow::Result<rustls::ClientConfig> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// A secret that is the same after a restart, bound to `purpose`.
    pub(crate) fn derived_secret(&self, purpose: &[u8]) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.secret_der());
        let mut secret = [0; 32];
        secret.copy_from_slice(ring::hmac::sign(&key, purpose).as_ref());
        secret
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// AES-128 first: on trunks the cipher is a good part of what a packet costs.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = || path.display().to_string();
    let list: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .with_context(shown)?;
    anyhow::ensure!(!list.is_empty(), "{}: no certificate inside", shown());
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_read_from_well_formed_uris_only() {
        let identity = Identity { region: "eu".into(), node: "edge-eu-1".into() };
        assert_eq!(Identity::from_uri(&identity.uri()), Some(identity.clone()));
        for uri in [
            "tandem://region/eu/node/",
            "tandem://region//node/a",
            "tandem://region/eu/node/a/node/b",
            "http://region/eu/node/a",
            "tandem://region/EU/node/a",
        ] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
        assert!(identity.require("eu", "edge-eu-1").is_ok());
        let error = identity.require("us", "edge-eu-1").unwrap_err().to_string();
        assert!(error.contains("region eu") && error.contains("region us"), "{error}");
    }

    #[test]
    fn a_key_of_another_node_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = ["a", "b"].map(|node| NodeNames::new("eu", node));
        init_pki(folder.path(), &nodes, 30).unwrap();
        let good = TlsFiles::of(folder.path(), "a");
        assert_eq!(Tls::load(&good).unwrap().identity().node, "a");
        let mixed = TlsFiles { key: TlsFiles::of(folder.path(), "b").key, ..good.clone() };
        assert!(Tls::load(&mixed).is_err());
        let absent = TlsFiles { ca: folder.path().join("none.pem"), ..good.clone() };
        let error = format!("{:#}", Tls::load(&absent).unwrap_err());
        assert!(error.contains("none.pem"), "{error}");
        let authority = TlsFiles { certificate: good.ca.clone(), ..good };
        assert!(Tls::load(&authority).is_err(), "the authority is no node");
    }

    #[test]
    fn derived_secrets_survive_a_restart_and_differ_by_purpose() {
        let folder = tempfile::tempdir().unwrap();
        init_pki(folder.path(), &[NodeNames::new("eu", "a")], 30).unwrap();
        let files = TlsFiles::of(folder.path(), "a");
        let (first, second) = (Tls::load(&files).unwrap(), Tls::load(&files).unwrap());
        assert_eq!(first.derived_secret(b"x"), second.derived_secret(b"x"));
        assert_ne!(first.derived_secret(b"x"), first.derived_secret(b"y"));
    }
}
