//! Words that do not belong in the repository.
//!
//! Needles are put together at run time, so that this file does not offend against itself.

use crate::{Source, none, sources};

fn offences(applies: impl Fn(&Source) -> bool, words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| applies(source)) {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", source.path.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let ignored = format!("#[{}", "ignore");
    let words = [words.as_slice(), &[ignored]].concat();
    none(&offences(|source| source.is("rs"), &words), "left to do");
}

#[test]
fn tests_never_sleep() {
    let asleep = format!("thread::{}(", "sleep");
    let virtual_only = format!("time::{}(", "sleep");
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is("rs")) {
        let tests =
            if source.is_test() { Some(source.text.as_str()) } else { inline(&source.text) };
        for line in tests.unwrap_or_default().lines() {
            // On tokio's paused clock a sleep is an instruction to the clock and takes no time.
            let paused = ["start_paused", "time::pause("];
            let real = !paused.iter().any(|word| source.text.contains(word));
            if line.contains(&asleep) || (real && line.contains(&virtual_only)) {
                found.push(format!("{}: {}", source.path.display(), line.trim()));
            }
        }
    }
    none(&found, "a test owns its clock and waits for events");
}

/// The tests that stand at the end of a source file.
fn inline(text: &str) -> Option<&str> {
    text.split_once("#[cfg(test)]\nmod tests {").map(|(_, tests)| tests)
}

#[test]
fn no_path_of_one_machine_and_no_registry_host() {
    let folders = ["work", "root", "tmp", "home"].map(|name| format!("/{name}/"));
    let hosts = [
        ("crates", "io"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("golang", "org"),
        ("maven", "org"),
        ("debian", "org"),
    ]
    .map(|(name, end)| format!("{name}.{end}"));
    let beside = format!("../{}", "shared");
    let words = [folders.as_slice(), &hosts, &[beside]].concat();
    let found = offences(|source| !source.is_lock(), &words);
    none(&found, "the repository knows no machine but the reader's");
}
