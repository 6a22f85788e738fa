//! Makes the authority and the nodes' certificates for a first start, and renews them.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::{Identity, TlsFiles, server_name};
use crate::clock;
use crate::config::kind::is_name;

/// Who gets a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNames {
    /// Region.
    pub region: String,
    /// Node name.
    pub node: String,
    /// Further DNS names and IP addresses.
    pub names: Vec<String>,
}

impl NodeNames {
    /// Without further names.
    pub fn new(region: &str, node: &str) -> Self {
        Self { region: region.to_owned(), node: node.to_owned(), names: Vec::new() }
    }
}

/// Writes `ca.pem`, `ca.key` and `<node>.pem`, `<node>.key` for each node into `folder`. An
/// authority that is already there is kept and signs again; node certificates are renewed and are
/// valid for `valid_days`. Returns the files written.
///
/// # Errors
/// Names the file or node.
pub fn init_pki(
    folder: &Path,
    nodes: &[NodeNames],
    valid_days: u32,
) -> anyhow::Result<Vec<PathBuf>> {
    for node in nodes {
        let good = is_name(&node.region) && is_name(&node.node) && node.node != "ca";
        anyhow::ensure!(good, "{:?} in {:?} is no node name", node.node, node.region);
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut written = Vec::new();
    let issuer = authority(folder, &mut written)?;
    for node in nodes {
        let files = TlsFiles::of(folder, &node.node);
        let key = KeyPair::generate()?;
        let certificate = node_params(node, valid_days)?
            .signed_by(&key, &issuer)
            .with_context(|| format!("certificate of {}", node.node))?;
        write(&files.key, &key.serialize_pem(), 0o600, &mut written)?;
        write(&files.certificate, &certificate.pem(), 0o644, &mut written)?;
    }
    Ok(written)
}

/// The authority in `folder`, made if there is none.
fn authority(
    folder: &Path,
    written: &mut Vec<PathBuf>,
) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (key_path, certificate_path) = (folder.join("ca.key"), folder.join("ca.pem"));
    // Name and key decide how the authority signs; both are the same for a kept one.
    let params = authority_params();
    if key_path.exists() && certificate_path.exists() {
        let shown = || key_path.display().to_string();
        let pem = std::fs::read_to_string(&key_path).with_context(shown)?;
        return Ok(Issuer::new(params, KeyPair::from_pem(&pem).with_context(shown)?));
    }
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(&key_path, &key.serialize_pem(), 0o600, written)?;
    write(&certificate_path, &certificate.pem(), 0o644, written)?;
    Ok(Issuer::new(params, key))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Tandem private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, 3650);
    params
}

fn node_params(node: &NodeNames, valid_days: u32) -> anyhow::Result<CertificateParams> {
    let identity = Identity { region: node.region.clone(), node: node.node.clone() };
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&node.node);
    params.subject_alt_names = vec![
        SanType::URI(identity.uri().try_into()?),
        SanType::DnsName(server_name(&node.node).try_into()?),
    ];
    for name in &node.names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, valid_days);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From a day ago, because clocks of machines differ, for `days`. 0 days = expired already.
fn valid_for(params: &mut CertificateParams, days: u32) {
    const DAY: Duration = Duration::from_secs(86_400);
    let epoch = date_time_ymd(1970, 1, 1);
    let now = clock::unix_time();
    params.not_before = epoch + now.saturating_sub(DAY * 2);
    params.not_after =
        epoch + (now + DAY * days).saturating_sub(if days == 0 { DAY } else { Duration::ZERO });
}

/// Writes through a temporary file, so that nobody reads half a key.
fn write(path: &Path, text: &str, mode: u32, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // A leftover might have other permissions; there may be none.
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .with_context(shown)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(shown)?;
    std::fs::rename(&temporary, path).with_context(shown)?;
    written.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_and_the_authority_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeNames {
            names: vec!["127.0.0.1".into(), "edge.example.net".into()],
            ..NodeNames::new("eu", "edge-1")
        };
        let first = init_pki(folder.path(), std::slice::from_ref(&node), 30).unwrap();
        assert_eq!(first.len(), 4);
        for file in &first {
            let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
            let private = file.extension().is_some_and(|extension| extension == "key");
            assert_eq!(mode, if private { 0o600 } else { 0o644 }, "{}", file.display());
        }
        let authority = std::fs::read(folder.path().join("ca.pem")).unwrap();
        let before = std::fs::read(folder.path().join("edge-1.pem")).unwrap();
        assert_eq!(init_pki(folder.path(), &[node], 30).unwrap().len(), 2);
        assert_eq!(std::fs::read(folder.path().join("ca.pem")).unwrap(), authority);
        assert_ne!(std::fs::read(folder.path().join("edge-1.pem")).unwrap(), before);
    }

    #[test]
    fn names_that_would_break_the_uri_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (region, node) in [("eu", "a/node/b"), ("EU", "a"), ("eu", ""), ("eu", "ca")] {
            assert!(init_pki(folder.path(), &[NodeNames::new(region, node)], 1).is_err());
        }
    }
}
