//! SES, SIG: what is kept between calls, and headers that pass through.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use e2e::raw::{Raw, header};
use e2e::world::{LIMIT, ended, hears};
use e2e::{NUMBER, Setup};
use tandem_load::Step;
use tandem_rig::Page;

fn cookies(request: &tandem_rig::Recorded) -> BTreeMap<String, String> {
    let text = request.headers.get("cookie").cloned().unwrap_or_default();
    let pairs = text.split("; ").filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn ses_01_cookies_come_back_within_the_session() -> Result<()> {
    let first = Page::verbs("<Redirect>/next</Redirect>")
        .header("Set-Cookie", "visit=1; Max-Age=3600; Path=/")
        .header("Set-Cookie", "brief=1; Max-Age=0; Path=/")
        .header("Set-Cookie", "other=1; Path=/other");
    let world = Setup::new()?
        .page("/start", first)
        .page("/next", Page::verbs("<Play>/short.wav</Play><Redirect>/last</Redirect>"))
        .page("/last", Page::verbs("<Play>/short.wav</Play>"))
        .begin()?;
    world.call_through(hears(&[]))?;
    let visit = |path: &str| cookies(&world.app.requests_for(path)[0]);
    assert_eq!(visit("/start"), BTreeMap::new());
    for path in ["/next", "/last"] {
        assert_eq!(visit(path), [("visit".to_owned(), "1".to_owned())].into(), "{path}");
    }
    // Another caller does not get them.
    let other = world.bank.add(world.caller(NUMBER, hears(&[])).user("+15559002"))?;
    ended(&other)?;
    assert_eq!(cookies(&world.app.requests_for("/start")[1]), BTreeMap::new());
    world.finish()
}

#[test]
fn sig_02_x_headers_pass_in_both_directions() -> Result<()> {
    let callee = Raw::bind("127.0.0.1")?;
    let at = callee.address()?;
    let world = Setup::with(&format!(
        "<Dial timeout='5' action='/after'><Sip>sip:raw@{at}?X-Ticket=a%20b&amp;Route=%3Csip:evil%3E</Sip></Dial>"
    ))?
    .page("/after", Page::verbs("<Play>/short.wav</Play>"))
    .begin()?;
    let alice = world.caller(NUMBER, [Step::WaitAnswer(8_000)]).header("X-Customer", "gold 7");
    let alice = world.bank.add(alice)?;
    let (invite, from) = callee.receive().context("INVITE")?;
    assert!(invite.starts_with("INVITE sip:raw@"), "{invite}");
    assert_eq!(header(&invite, "X-Ticket"), Some("a b"));
    assert!(!invite.contains("evil"), "only X- headers: {invite}");
    assert_eq!(header(&invite, "X-Customer"), None, "nothing is copied from the other leg");
    // Refused, so that the call ends.
    let mut refusal = String::from("SIP/2.0 486 Busy Here\r\n");
    for name in ["Via", "From", "Call-ID", "CSeq"] {
        refusal += &format!("{name}: {}\r\n", header(&invite, name).context(name)?);
    }
    refusal +=
        &format!("To: {};tag=r\r\nContent-Length: 0\r\n\r\n", header(&invite, "To").context("To")?);
    callee.send(from, refusal.as_bytes())?;
    ended(&alice)?;
    let start = &world.app.requests_for("/start")[0];
    assert_eq!(start.param("SipHeader_X-Customer"), Some("gold 7"));
    assert_eq!(start.param("SipSourceIp"), Some("127.0.0.1"));
    let after = &world.app.wait_for("/after", 1, LIMIT)?[0];
    assert_eq!(after.param("DialCallStatus"), Some("busy"));
    assert_eq!(after.param("DialSipResponseCode"), Some("486"));
    world.finish()
}
