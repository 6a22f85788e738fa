//! `tandem calls`: the live legs of an edge, as a table.

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::Value;
use tandem_rig::http;

/// Arguments of `tandem calls`.
#[derive(Args)]
pub struct Arguments {
    /// Admin address of the edge.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "IP:PORT")]
    admin: std::net::SocketAddr,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
///
/// # Errors
/// If the edge does not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let url = format!("http://{}/calls", arguments.admin);
    let page = http::get(&url, None).with_context(|| format!("no edge answers on {url}"))?;
    if arguments.json {
        println!("{}", page.text());
        return Ok(());
    }
    let legs = page.json()?;
    // Anything else is not "no legs".
    let legs = legs.as_array().with_context(|| format!("{url} answers no list of legs: {legs}"))?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let columns = ["leg", "state", "peer", "codec", "held", "answered_ms", "sip_call_id"];
    table.set_header(columns);
    for leg in legs {
        table.add_row(columns.map(|column| match leg.get(column) {
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }));
    }
    println!("{table}\n{} leg(s)", legs.len());
    Ok(())
}
