//! The layering rules of `ARCHITECTURE.md`, checked against the whole dependency closure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What a crate of ours may depend on, directly, among our own crates.
const ALLOWED: &[(&str, &[&str])] = &[
    // 0: contracts and engines
    ("sip-core", &[]),
    ("media-core", &[]),
    ("link-proto", &[]),
    // 1: cores
    ("edge-media", &["media-core", "link-proto"]),
    ("edge-core", &["sip-core", "link-proto", "edge-media", "media-core"]),
    ("control-core", &["link-proto"]),
    // 2: mechanics
    ("edge-uring", &[]),
    ("edge-xdp", &[]),
    ("link-daemon", &[]),
    ("control-store", &["link-proto", "link-daemon"]),
    ("control-media-layer", &["link-proto", "media-core", "link-daemon"]),
    // 3: shells
    (
        "edge",
        &[
            "edge-core",
            "edge-media",
            "edge-uring",
            "edge-xdp",
            "sip-core",
            "media-core",
            "link-proto",
            "link-daemon",
        ],
    ),
    (
        "control",
        &["control-core", "control-store", "control-media-layer", "link-proto", "link-daemon"],
    ),
    // 4: outside
    ("tandem-wan", &[]),
    ("tandem-load", &["sip-core", "media-core", "link-daemon"]),
    (
        "sim",
        &[
            "edge-core",
            "edge-media",
            "control-core",
            "link-proto",
            "sip-core",
            "media-core",
            "tandem-wan",
        ],
    ),
    (
        "e2e",
        &[
            "tandem-load",
            "tandem-wan",
            "edge-xdp",
            "media-core",
            "sip-core",
            "link-proto",
            "link-daemon",
        ],
    ),
];

/// Crates that may reach a runtime, sockets or a database, at whatever depth.
const WITHOUT_IO: &[&str] =
    &["sip-core", "media-core", "link-proto", "edge-media", "edge-core", "control-core", "sim"];

const IO: &[&str] = &[
    "tokio", "mio", "socket2", "io-uring", "quinn", "hyper", "reqwest", "axum", "rusqlite",
    "anyhow",
];

/// `sim` is a program as well: its command line may use anyhow.
const EXCUSED: &[(&str, &str)] = &[("sim", "anyhow"), ("sim", "socket2")];

pub fn run(root: &Path) -> Result<()> {
    // Packages of other platforms are not needed for the build, so a new machine has not got them.
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host()?])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let graph = normal_dependencies(&metadata)?;
    let mut wrong = Vec::new();
    for (name, allowed) in ALLOWED {
        let Some(direct) = graph.get(*name) else { bail!("layers: no crate {name}") };
        let ours = |d: &&String| ALLOWED.iter().any(|(n, _)| n == d);
        for dependency in direct.iter().filter(ours) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    for name in WITHOUT_IO {
        for reached in closure(&graph, name) {
            let excused = EXCUSED.contains(&(*name, reached.as_str()));
            if IO.contains(&reached.as_str()) && !excused {
                wrong.push(format!("{name} -> … -> {reached}"));
            }
        }
    }
    if wrong.is_empty() {
        println!("layers: {} crates in order", ALLOWED.len());
        return Ok(());
    }
    bail!("layers: arrows that must not be:\n  {}", wrong.join("\n  "))
}

/// The platform that rustc builds for by itself.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn normal_dependencies(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let id = package["id"].as_str().unwrap_or_default();
        names.insert(id.to_owned(), package["name"].as_str().unwrap_or_default().to_owned());
    }
    let mut graph = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("resolve")? {
        let mut direct = BTreeSet::new();
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            let normal = kinds.into_iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str().unwrap_or_default();
            if normal && let Some(name) = names.get(id) {
                direct.insert(name.clone());
            }
        }
        let id = node["id"].as_str().unwrap_or_default();
        let name = names.get(id).cloned().unwrap_or_default();
        graph.entry(name).or_insert_with(BTreeSet::new).extend(direct);
    }
    Ok(graph)
}

fn closure(graph: &BTreeMap<String, BTreeSet<String>>, name: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        for dependency in graph.get(&next).into_iter().flatten() {
            if reached.insert(dependency.clone()) {
                open.push(dependency.clone());
            }
        }
    }
    reached
}
