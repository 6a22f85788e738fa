//! What a person sees of the demonstration.

use comfy_table::{Table, presets};

use super::facts::{CallFacts, Facts};
use super::stage::Stage;

/// One line while it runs.
pub fn progress(line: &str) {
    println!("· {line}");
}

/// The end of one call.
pub fn verdict(call: &CallFacts) {
    let held = call.checks.iter().filter(|check| check.ok).count();
    let mark = if call.ok { "✓" } else { "✗" };
    println!("{mark} {}  ({held} of {} checks)", call.name, call.checks.len());
    for check in call.failed() {
        println!("    ✗ {}: {}", check.what, check.seen);
    }
}

/// One timeline per call.
pub fn timelines(facts: &Facts) {
    for call in &facts.calls {
        println!("\n{}", call.name);
        for line in &call.timeline {
            println!("  {line}");
        }
    }
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"))
}

/// The table of what was measured.
pub fn table(facts: &Facts) {
    let mut calls = Table::new();
    calls.load_style(presets::UTF8_BORDERS_ONLY);
    calls.set_header([
        "call",
        "set-up ms",
        "post-dial ms",
        "mouth-to-ear ms",
        "longest gap ms",
        "WAN datagrams/s",
        "end",
        "ok",
    ]);
    for call in &facts.calls {
        let end = call.end.as_ref().map(|end| format!("{} by {}", end.reason, end.whose));
        calls.add_row([
            call.name.clone(),
            ms(call.set_up_ms),
            ms(call.post_dial_delay_ms),
            ms(call.mouth_to_ear_ms),
            format!("{} / {}", ms(call.longest_gap_ms), ms(call.longest_gap_callee_ms)),
            call.wan_datagrams_per_s.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
            end.unwrap_or_else(|| "–".to_owned()),
            if call.ok { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    println!("\n{calls}");
    let mut phases = Table::new();
    phases.load_style(presets::UTF8_BORDERS_ONLY);
    phases.set_header([
        "call",
        "phase",
        "mode",
        "media in",
        "RTP out of region",
        "longest gap ms",
        "wait web ms",
        "wait control ms",
    ]);
    for call in &facts.calls {
        let letter = call.name.split_whitespace().next().unwrap_or_default();
        for phase in &call.phases {
            phases.add_row([
                letter.to_owned(),
                phase.verb.clone(),
                phase.mode.clone(),
                phase.media_region.clone(),
                phase
                    .packets_out_of_region
                    .map_or_else(|| "–".to_owned(), |count| count.to_string()),
                ms(phase.longest_gap_ms),
                phase.wait_ms.to_string(),
                phase.wait_control_ms.to_string(),
            ]);
        }
    }
    println!("{phases}");
    let good = facts.calls.iter().filter(|call| call.ok).count();
    println!(
        "{good} of {} calls did what they should, in {:.0} s",
        facts.calls.len(),
        facts.seconds
    );
}

/// What to try while the regions keep running.
pub fn next_steps(stage: &Stage) {
    use tandem_rig::rig::{ACCOUNT, TOKEN};
    println!("\nThe two regions keep running. Things to try:");
    println!("  call from a softphone   {}", stage.uri(super::stage::MENU));
    println!(
        "  list the calls          curl -u {ACCOUNT}:{TOKEN} {}",
        stage.control.account_url("/Calls.json")
    );
    println!("  live legs of the edge   curl http://{}/calls", stage.eu.admin);
    println!("  metrics of the edge     curl http://{}/metrics", stage.eu.admin);
    println!("  configuration and logs  {}", stage.rig.folder().display());
    println!("Ctrl-C ends everything.");
}
