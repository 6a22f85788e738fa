//! The verdict as people read it.

use comfy_table::{ContentArrangement, Table, presets};

use super::verdict::{Percentiles, SideVerdict, Verdict};

/// The verdict as tables.
pub fn table(verdict: &Verdict) -> String {
    let mut sides = new_table();
    sides.set_header(["", "caller", "answerer"]);
    let mut row = |name: &str, value: &dyn Fn(&SideVerdict) -> String| {
        let cell = |side: &Option<SideVerdict>| side.as_ref().map_or("–".to_owned(), value);
        sides.add_row([name.to_owned(), cell(&verdict.caller), cell(&verdict.answerer)]);
    };
    row("calls attempted", &|side| side.attempted.to_string());
    row("calls ok", &|side| side.ok.to_string());
    row("calls failed", &|side| failures(side));
    row("calls without RTP", &|side| side.deaf.to_string());
    row("set-up p50 / p90 / p99 / max, ms", &|side| times(&side.set_up));
    row("post-dial p50 / p90 / p99 / max, ms", &|side| times(&side.post_dial));
    row("RTP sent", &|side| side.rtp.sent.to_string());
    row("RTP received", &|side| side.rtp.received.to_string());
    row("RTP lost in sequence", &|side| {
        format!("{} ({:.3} %)", side.rtp.lost, side.rtp.loss() * 100.0)
    });
    row("RTP duplicates / late", &|side| format!("{} / {}", side.rtp.duplicates, side.rtp.late));
    row("socket drops / send errors", &|side| {
        format!("{} / {}", side.rtp.socket_drops, side.rtp.send_errors)
    });
    row("longest gap, ms", &|side| format!("{:.1}", side.rtp.max_gap_ms));
    row("latest packet sent, ms", &|side| format!("{:.1}", side.rtp.send_late_max_ms));

    let mut out =
        format!("{sides}\n{:.1} s, at most {} calls up at once\n", verdict.took_s, verdict.up_max);
    if let (Some(there), Some(back)) = (verdict.unaccounted_there, verdict.unaccounted_back) {
        out += &format!(
            "sent − received − socket drops: {there} packets to the answerer, {back} to the caller\n"
        );
    }
    if let Some(pairing) = &verdict.pairing {
        let delay = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
        out += &format!(
            "{} of {} sampled calls hear the right one; mouth to ear {} ms there, {} ms back\n",
            pairing.ok,
            pairing.calls.len(),
            delay(pairing.there_ms),
            delay(pairing.back_ms)
        );
    }
    if !verdict.checks.is_empty() {
        let mut checks = new_table();
        checks.set_header(["check", "measured", "limit", ""]);
        for check in &verdict.checks {
            let mark = if check.ok { "ok" } else { "FAILED" };
            checks.add_row([&check.what, &check.measured, &check.limit, mark]);
        }
        out += &format!("{checks}\n");
    }
    out += if verdict.ok { "PASSED" } else { "FAILED" };
    out
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn failures(side: &SideVerdict) -> String {
    let mut lines: Vec<String> =
        side.failed.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
    if side.unfinished > 0 {
        lines.push(format!("{} × not over in time", side.unfinished));
    }
    if lines.is_empty() { "0".to_owned() } else { lines.join("\n") }
}

fn times(times: &Percentiles) -> String {
    if times.count == 0 {
        return "–".to_owned();
    }
    format!("{:.1} / {:.1} / {:.1} / {:.1}", times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms)
}
