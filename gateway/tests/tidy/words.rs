//! Words that do not belong in the repository.
//!
//! Needles are put together at run time, so that this file does not offend against itself.

use crate::{Source, none, sources};

fn offences(
    applies: impl Fn(&Source) -> bool,
    offends: impl Fn(&Source, &str) -> Option<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| applies(source)) {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = offends(source, line) {
                found.push(format!("{}:{}: {word}", source.path.display(), number + 1));
            }
        }
    }
    found
}

fn first(words: &[String], line: &str) -> Option<String> {
    words.iter().find(|word| line.contains(word.as_str())).cloned()
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let ignored = format!("#[{}", "ignore");
    let words = [words.as_slice(), &[ignored]].concat();
    none(&offences(|source| source.is("rs"), |_, line| first(&words, line)), "left to do");
}

#[test]
fn tests_never_sleep() {
    let asleep = format!("thread::{}(", "sleep");
    let virtual_only = format!("time::{}(", "sleep");
    let found = offences(
        |source| {
            // A module that is declared here and stands elsewhere is looked at there.
            source.is("rs")
                && (source.is_test() || source.text.contains("#[cfg(test)]\nmod tests {"))
        },
        |source, line| {
            // On tokio's paused clock a sleep is an instruction to the clock and takes no time.
            let paused = ["start_paused", "time::pause("];
            let real = !paused.iter().any(|word| source.text.contains(word));
            let offends = line.contains(&asleep) || (real && line.contains(&virtual_only));
            offends.then(|| line.trim().to_owned())
        },
    );
    none(&found, "a test owns its clock and waits for events");
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
    let found = offences(|source| !source.is_lock(), |_, line| first(&words, line));
    none(&found, "the repository knows no machine but the reader's");
}
