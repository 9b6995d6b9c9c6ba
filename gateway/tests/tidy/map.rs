//! README's code map and the sources, held against each other.
//!
//! The map is the fenced block under `## Code map`: an unindented line names a folder
//! (`gateway/src`), the indented lines below it a file each, relative to it, then what it is for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::{none, sources, workspace};

/// The files that the map names, relative to the workspace.
fn mapped(readme: &str) -> BTreeSet<PathBuf> {
    let section = readme.split("\n## ").find(|section| section.starts_with("Code map"));
    let section = section.expect("README.md has a section `## Code map`");
    let block = section.split("```").nth(1).expect("the code map is a fenced block");
    let (mut folder, mut files) = (PathBuf::new(), BTreeSet::new());
    for line in block.lines().skip(1) {
        let Some(name) = line.split_whitespace().next() else { continue };
        if !line.starts_with(' ') {
            folder = PathBuf::from(name);
        } else if name.ends_with(".rs") {
            files.insert(folder.join(name));
        }
    }
    files
}

#[test]
fn readme_maps_every_module_and_no_other() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap_or_default();
    let mapped = mapped(&format!("\n{readme}"));
    let real: BTreeSet<PathBuf> = sources()
        .into_iter()
        .filter(|source| source.is("rs") && !source.is_test())
        .filter(|source| {
            source.path.components().nth(1).is_some_and(|dir| dir.as_os_str() == "src")
        })
        .map(|source| source.path)
        .collect();
    let missing = real.difference(&mapped).map(|path| format!("not mapped: {}", path.display()));
    let gone = mapped.difference(&real).map(|path| format!("not there: {}", path.display()));
    none(&missing.chain(gone).collect::<Vec<_>>(), "README's code map");
}

#[test]
fn the_map_is_read_as_it_is_written() {
    let readme = "\n## Code map\nHow.\n```text\nkv-index/src   hashes\n  hash.rs      one\n  \
                  hash/chain.rs  two, see other.rs\n\nrouter/src\n  lib.rs x\n```\n## Next\n";
    let found = mapped(readme);
    let wanted = ["kv-index/src/hash.rs", "kv-index/src/hash/chain.rs", "router/src/lib.rs"];
    assert_eq!(found, wanted.iter().map(PathBuf::from).collect());
}
