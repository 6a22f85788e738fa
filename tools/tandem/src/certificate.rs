//! `tandem certificate`: another node, or the same one for another year.

use std::path::PathBuf;

use clap::Args;
use link_daemon::tls::{NodeNames, init_pki};

/// Arguments of `tandem certificate`.
#[derive(Args)]
pub struct Arguments {
    /// Name of the node, as in its configuration.
    node: String,
    /// Region of the node, as in its configuration.
    #[arg(long)]
    region: String,
    /// Folder with ca.pem and ca.key, made by `init`; the node's files are written there.
    #[arg(long, value_name = "FOLDER", default_value = "tandem-data/pki")]
    pki: PathBuf,
    /// How long it is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Makes or renews the certificate of one node.
///
/// # Errors
/// If the authority is not there, or names the file or node.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let authority = arguments.pki.join("ca.key");
    anyhow::ensure!(
        authority.is_file(),
        "{} is not there: the authority is made by `tandem init`, and its key stays with whoever \
         makes certificates",
        authority.display()
    );
    let node = NodeNames::new(&arguments.region, &arguments.node);
    for path in init_pki(&arguments.pki, &[node], arguments.days)? {
        println!("wrote {}", path.display());
    }
    println!("a running node takes it when it is restarted");
    Ok(())
}
