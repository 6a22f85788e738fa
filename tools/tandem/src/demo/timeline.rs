//! Reads a call's timeline from control's API and turns it into phases.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tandem_load::PhoneReport;
use tandem_rig::http;
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};

use super::facts::{CallFacts, EndFacts, PhaseFacts};
use super::stage::Stage;

/// How long the end of a call may take to reach control.
const END_MAX: Duration = Duration::from_secs(5);

/// The rows of a session that has ended, oldest first.
///
/// # Errors
/// If control does not answer.
pub fn fetch(stage: &Stage, session: &str) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let ended = |row: &Value| {
        text(row.get("event").unwrap_or(row), "kind") == "leg-ended" && text(row, "leg") == session
    };
    // A call whose end never arrives is shown as far as it is known; a check fails then.
    let _ = wait_for("the end of the call at control", END_MAX, || {
        rows = fetch_now(stage, session)?;
        Ok(rows.iter().any(ended))
    });
    Ok(rows)
}

fn fetch_now(stage: &Stage, session: &str) -> anyhow::Result<Vec<Value>> {
    let url = stage.control.url(&format!("/tandem/v1/calls/{session}/timeline.json"));
    let page = http::get(&url, Some((ACCOUNT, TOKEN)))?;
    let body = page.json()?;
    let rows = body.get("timeline").or(Some(&body)).and_then(Value::as_array);
    Ok(rows.with_context(|| format!("{url}: {body}"))?.clone())
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Value, key: &str) -> u64 {
    row.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Fills phases, end and timeline lines of `facts`.
pub fn read(
    facts: &mut CallFacts,
    rows: &[Value],
    session: &str,
    caller: &PhoneReport,
    edge: &str,
) {
    let ahead_ns = tandem_load::clock::realtime_ahead_ns();
    let mut counters: Vec<(u32, u64)> = Vec::new();
    for row in rows {
        let event = row.get("event").unwrap_or(row);
        let phase = number(event, "phase") as u32;
        facts.timeline.push(line(row, event, session));
        match text(event, "kind") {
            "phase" => {
                let at_ns = (number(row, "at_unix_ms") * 1_000_000).saturating_sub(ahead_ns);
                facts.phases.push(PhaseFacts {
                    verb: text(event, "verb").to_owned(),
                    wait_ms: number(event, "wait_web_ms"),
                    wait_control_ms: number(event, "wait_control_ms")
                        + number(event, "wait_media_ms"),
                    from_ns: at_ns,
                    number: phase,
                    ..PhaseFacts::default()
                });
            }
            "graph" => {
                if let Some(facts) = facts.phases.iter_mut().find(|facts| facts.number == phase) {
                    read_graph(facts, event, session);
                }
            }
            "counters" if text(event, "node") == edge => {
                counters.push((phase, number(event, "packets_out_of_region")));
            }
            "leg-ended" if text(row, "leg") == session => {
                facts.end = Some(EndFacts {
                    reason: text(event, "reason").to_owned(),
                    whose: text(event, "whose").to_owned(),
                });
            }
            _ => {}
        }
    }
    for phase in facts.phases.iter_mut().filter(|phase| phase.media_region.is_empty()) {
        phase.media_region = "eu".to_owned();
    }
    let ends: Vec<u64> = facts.phases.iter().skip(1).map(|phase| phase.from_ns).collect();
    for (index, phase) in facts.phases.iter_mut().enumerate() {
        let end = ends.get(index).copied();
        let end = end.or(caller.end.as_ref().map(|end| end.at_ns)).unwrap_or(phase.from_ns);
        let window = caller.received.window(phase.from_ns, end);
        phase.longest_gap_ms = (window.packets > 1).then_some(window.max_gap_ms);
        let at = |number: u32| counters.iter().find(|(n, _)| *n == number).map(|(_, count)| *count);
        let before = at(phase.number).unwrap_or(0);
        phase.packets_out_of_region =
            at(phase.number + 1).map(|after| after.saturating_sub(before));
    }
}

fn read_graph(facts: &mut PhaseFacts, event: &Value, session: &str) {
    let labels = event.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
    // What the caller hears, or, when it hears nothing, what is heard of it.
    let heard = labels.iter().find(|label| text(label, "to") == session);
    let said = labels.iter().find(|label| text(label, "from") == session);
    if let Some(label) = heard.or(said).filter(|_| facts.mode.is_empty()) {
        facts.mode = text(label, "label").to_owned();
    }
    let places = event.get("processors").and_then(Value::as_array).cloned().unwrap_or_default();
    for place in &places {
        let place = format!("{} in {}", text(place, "kind"), text(place, "region"));
        if !facts.media_region.contains(&place) {
            let separator = if facts.media_region.is_empty() { "" } else { ", " };
            facts.media_region.push_str(separator);
            facts.media_region.push_str(&place);
        }
    }
}

fn line(row: &Value, event: &Value, session: &str) -> String {
    let who = match text(row, "leg") {
        "" => "",
        leg if leg == session => "caller ",
        _ => "callee ",
    };
    let mut rest: Vec<String> = Vec::new();
    for (key, value) in event.as_object().into_iter().flatten() {
        let shown = match (key.as_str(), value) {
            ("kind", _) | (_, Value::Null) => continue,
            ("labels", Value::Array(labels)) => labels
                .iter()
                .map(|label| {
                    let name = |party: &str| {
                        if party == session {
                            "caller".to_owned()
                        } else if party.starts_with("CA") {
                            "callee".to_owned()
                        } else {
                            party.to_owned()
                        }
                    };
                    format!(
                        "{}→{} {}",
                        name(text(label, "from")),
                        name(text(label, "to")),
                        text(label, "label")
                    )
                })
                .collect::<Vec<_>>()
                .join("; "),
            ("processors", Value::Array(places)) => places
                .iter()
                .map(|place| format!("{}@{}", text(place, "kind"), text(place, "region")))
                .collect::<Vec<_>>()
                .join(" "),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        rest.push(format!("{key}={shown}"));
    }
    format!(
        "{:>7} ms  {who}{:<12} {}",
        number(row, "offset_ms"),
        text(event, "kind"),
        rest.join(" ")
    )
}
