//! Which crate may know which: `kv-index <- router <- loadtest <- gateway (demo only)`.

use std::collections::{BTreeSet, HashMap, HashSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::{none, sources, workspace};

/// A crate, the crates of ours it may use, and third parties it must not even reach through others.
struct Wall {
    name: &'static str,
    may_use: &'static [&'static str],
    never_reaches: &'static [&'static str],
}

const WALLS: [Wall; 4] = [
    Wall {
        name: "kv-index",
        may_use: &[],
        never_reaches: &[
            "tokio",
            "http",
            "hyper",
            "axum",
            "reqwest",
            "serde_json",
            "log",
            "tracing",
            "jiff",
            "chrono",
            "time",
            "pingora-core",
        ],
    },
    Wall { name: "router", may_use: &["kv-index"], never_reaches: &["pingora-core", "axum"] },
    Wall { name: "loadtest", may_use: &["kv-index", "router"], never_reaches: &["pingora-core"] },
    Wall { name: "gateway", may_use: &["kv-index", "router", "loadtest"], never_reaches: &[] },
];

/// The system that this was built on, as cargo names it.
fn host() -> String {
    let told = std::process::Command::new("rustc").arg("-vV").output().expect("rustc is here");
    let told = String::from_utf8(told.stdout).expect("rustc speaks UTF-8");
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

fn metadata() -> Metadata {
    // Crates for other systems alone were never downloaded.
    let options = ["--offline", "--locked", "--filter-platform", &host()];
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .other_options(options.map(str::to_owned))
        .exec()
        .expect("cargo metadata answers from what the build has just used")
}

#[test]
fn every_crate_keeps_to_its_side_of_the_wall() {
    let metadata = metadata();
    let ours: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(ours, WALLS.iter().map(|wall| wall.name).collect(), "a crate without a wall");

    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        let wall = WALLS
            .iter()
            .find(|wall| wall.name == package.name.as_str())
            .expect("every crate has a wall: asserted above");
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if ours.contains(name) && !wall.may_use.contains(&name) {
                offences.push(format!("{} uses {name}", wall.name));
            }
            // The simulator is the demo's and the tests', never the server's.
            let is_tests = dependency.kind == DependencyKind::Development;
            if wall.name == "gateway" && name == "loadtest" && !dependency.optional && !is_tests {
                offences.push("gateway uses loadtest outside the feature `demo`".to_owned());
            }
        }
        let reached = reached(&metadata, &package.id);
        for name in wall.never_reaches.iter().filter(|name| reached.contains(**name)) {
            offences.push(format!("{} reaches {name}", wall.name));
        }
    }
    none(&offences, "design: kv-index <- router <- loadtest <- gateway (demo only)");
}

/// The names of everything a crate links, tests and build scripts aside.
fn reached<'a>(metadata: &'a Metadata, from: &PackageId) -> HashSet<&'a str> {
    let resolve = metadata.resolve.as_ref().expect("metadata was asked for with dependencies");
    let nodes: HashMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let (mut seen, mut open) = (HashSet::new(), vec![from]);
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let linked =
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if linked && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.as_str()).collect()
}

#[test]
fn kv_index_has_no_clock() {
    let clocks: Vec<_> = sources()
        .iter()
        .filter(|source| source.path.starts_with("kv-index/src") && !source.is_test())
        .filter(|source| source.text.contains("std::time"))
        .map(|source| source.path.display().to_string())
        .collect();
    none(&clocks, "kv-index takes time as an argument, in the caller's units");
}
