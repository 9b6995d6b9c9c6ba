//! The house rules that a compiler does not know: walls between crates, sizes, names, words.

mod map;
mod rooms;
mod walls;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file is one idea: about 250 lines, never over this.
const MOST_LINES: usize = 400;
/// What people write by hand here, and so has to stay readable.
const CODE: [&str; 6] = ["rs", "py", "sh", "mjs", "yaml", "toml"];

/// One file that git knows or would take, with its path relative to the workspace.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }

    /// Written by Cargo, or by Go, whose modules' names are addresses.
    fn is_lock(&self) -> bool {
        let names = ["Cargo.lock", "go.mod", "go.sum"];
        self.path.file_name().is_some_and(|name| names.iter().any(|&lock| name == lock))
    }

    /// `tests/…` of a crate, or the `tests.rs` beside a module.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Every text file of the repository; binaries are left out.
fn sources() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("our paths are UTF-8");
    let found: Vec<Source> = names
        .split_terminator('\0')
        .filter_map(|name| {
            // A file removed but not yet committed is still listed.
            let text = std::fs::read_to_string(workspace().join(name)).ok()?;
            Some(Source { path: PathBuf::from(name), text })
        })
        .collect();
    assert!(found.len() > 20, "only {} files found: the walk is wrong", found.len());
    found
}

/// Fails with one line per offence.
fn none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}\n{}", offences.join("\n"));
}

#[test]
fn a_file_is_one_idea_and_never_over_400_lines() {
    let long: Vec<_> = sources()
        .iter()
        .filter(|source| CODE.iter().any(|extension| source.is(extension)) && !source.is_lock())
        .filter_map(|source| {
            let lines = source.text.lines().count();
            (lines > MOST_LINES).then(|| format!("{}: {lines} lines", source.path.display()))
        })
        .collect();
    none(&long, "a file holds more than one idea");
}

#[test]
fn a_module_is_foo_rs_beside_foo() {
    let old: Vec<_> = sources()
        .iter()
        .filter(|source| source.path.file_name().is_some_and(|name| name == "mod.rs"))
        .map(|source| source.path.display().to_string())
        .collect();
    none(&old, "a module is foo.rs beside foo/, never mod.rs");
}
