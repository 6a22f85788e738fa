//! `tandem init`: what a first start on one machine needs.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use link_daemon::entropy;
use link_daemon::tls::{NodeNames, init_pki};

/// Name of the control node that `init` makes.
pub const CONTROL: &str = "control-1";
/// Name of the edge that `init` makes.
pub const EDGE: &str = "edge-1";

/// Arguments of `tandem init`.
#[derive(Args)]
pub struct Arguments {
    /// Folder to make.
    #[arg(default_value = "tandem-data")]
    folder: PathBuf,
    /// Region of the edge.
    #[arg(long, default_value = "eu")]
    region: String,
    /// Address of this machine that SIP endpoints reach.
    #[arg(long, default_value = "127.0.0.1")]
    address: std::net::IpAddr,
}

/// Makes the folder; what is there already is kept.
///
/// # Errors
/// Names the file.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let written = make(&arguments.folder, &arguments.region, arguments.address)?;
    for path in &written {
        println!("wrote {}", path.display());
    }
    let folder = arguments.folder.display();
    println!("account {} with its secret in {folder}/account.token", account(&arguments.folder)?);
    println!("number  +15550100 asks http://127.0.0.1:8000/voice.xml ({folder}/control.toml)");
    println!("next    tandem up {folder}");
    Ok(())
}

/// See [`run`].
///
/// # Errors
/// Names the file.
pub fn make(
    folder: &Path,
    region: &str,
    address: std::net::IpAddr,
) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut written = Vec::new();
    let nodes = [NodeNames::new("core", CONTROL), NodeNames::new(region, EDGE)];
    let pki = folder.join("pki");
    if !pki.join(format!("{EDGE}.pem")).exists() {
        written.extend(init_pki(&pki, &nodes, 365)?);
    }
    let mut rng = entropy::seeded_rng()?;
    let account = link_proto_sid(&mut rng);
    let token = folder.join("account.token");
    write_new(&token, &hex(&mut rng), 0o600, &mut written)?;
    let control = include_str!("../templates/control.toml").replace("{account}", &account);
    write_new(&folder.join("control.toml"), &control, 0o644, &mut written)?;
    let edge = include_str!("../templates/edge.toml")
        .replace("{region}", region)
        .replace("{address}", &address.to_string());
    write_new(&folder.join("edge.toml"), &edge, 0o644, &mut written)?;
    Ok(written)
}

/// The account that the folder's configuration begins with.
fn account(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("control.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let sid = text.lines().find_map(|line| line.strip_prefix("sid = \"")?.strip_suffix('"'));
    Ok(sid.unwrap_or("of control.toml").to_owned())
}

fn hex(rng: &mut impl rand::Rng) -> String {
    use rand::RngExt as _;
    format!("{:032x}", rng.random::<u128>())
}

fn link_proto_sid(rng: &mut impl rand::Rng) -> String {
    format!("AC{}", hex(rng))
}

fn write_new(path: &Path, text: &str, mode: u32, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
            written.push(path.to_owned());
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
