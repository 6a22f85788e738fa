//! `tandem signature`: what a request's signatures are made of, for whoever looks for the reason why
//! one does not fit.

use anyhow::Context as _;
use control::sign;

/// Options of `tandem signature`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The URL as your server sees it, with its query.
    url: String,
    /// Parameters of the form of a POST, decoded. None for a GET.
    #[arg(value_name = "NAME=VALUE")]
    form: Vec<String>,
    /// Secret of the account.
    #[arg(long)]
    token: String,
    /// Time of the dated signature: `t` of `X-Tandem-Signature`, seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let form = arguments.form.iter().map(|pair| {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("{pair}: no NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let form = form.collect::<anyhow::Result<Vec<(String, String)>>>()?;
    let Arguments { url, token, time, .. } = arguments;
    println!("signed text         {}", sign::signed_text(url, &form));
    println!("{:<19} {}", sign::HEADER, sign::sha1(token, url, &form));
    if let Some(time) = time {
        println!("{:<19} {}", sign::HEADER_SHA256, sign::sha256(token, *time, url, &form));
    }
    Ok(())
}
