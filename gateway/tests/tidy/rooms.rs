//! Which room of a crate may know which: arrows between these point one way, and what a crate lists it
//! uses.

use std::path::Path;

use cargo_metadata::MetadataCommand;

use crate::{Source, none, sources, workspace};

/// A crate, a room of it, and a room that it must not know, since that one knows it, or can do without.
const ONE_WAY: [(&str, &str, &str); 9] = [
    ("router", "decide", "router"),
    ("router", "openai", "continuation"),
    ("router", "discovery", "pool"),
    ("gateway", "ingress", "proxy"),
    ("gateway", "request", "proxy"),
    ("gateway", "request", "epp"),
    ("gateway", "proxy", "epp"),
    ("gateway", "epp", "proxy"),
    ("gateway", "epp", "admin"),
];

/// Whether this source lies in a room: `ROOM.rs`, or a file under `ROOM/`.
fn is_in(source: &Source, krate: &str, room: &str) -> bool {
    let Ok(path) = source.path.strip_prefix(Path::new(krate).join("src")) else { return false };
    path.starts_with(room) || path == Path::new(room).with_extension("rs")
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let sources = sources();
    let mut offences = Vec::new();
    for (krate, room, unknown) in ONE_WAY {
        let mut files = 0;
        for source in sources.iter().filter(|source| is_in(source, krate, room)) {
            files += 1;
            let names = |line: &&str| line.contains(&format!("crate::{unknown}::"));
            let lines = source.text.lines().filter(names);
            offences.extend(lines.map(|line| format!("{}: {line}", source.path.display())));
        }
        assert!(files > 0, "{krate} has no room {room}");
    }
    none(&offences, "a room knows a room that it must not know");
}

#[test]
fn every_dependency_is_used() {
    let sources = sources();
    let metadata = MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo reads the manifests");
    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        let of_package =
            |source: &&Source| source.path.starts_with(package.name.as_str()) && source.is("rs");
        let text: Vec<_> = sources.iter().filter(of_package).map(|it| it.text.as_str()).collect();
        for dependency in &package.dependencies {
            let name = dependency.name.replace('-', "_");
            let used = [format!("{name}::"), format!("use {name};")];
            if !text.iter().any(|text| used.iter().any(|used| text.contains(used))) {
                offences.push(format!("{} does not use {}", package.name, dependency.name));
            }
        }
    }
    none(&offences, "a dependency that nobody uses is built for nothing");
}
