//! What can be wrong with the settings, said so that a person can mend it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::Error as YamlError;
use thiserror::Error;

use super::keys::{ENV_PREFIX, Key};
use super::{Origin, keys, words};

/// How alike two words must be for one to be suggested for the other (Jaro–Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// Why there are no settings to start with.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that is not a setting.
    #[error("{}: {message}", At(file, *line, *column))]
    File {
        /// The file.
        file: PathBuf,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
        /// What is wrong there.
        message: String,
    },
    /// An environment variable begins with `HEARTH_` and is no key.
    #[error("environment variable {name} is not a setting{}", suggestion(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The key's variable that is spelled most like it.
        nearest: Option<String>,
    },
    /// A flag or an environment variable has a value that its key does not take.
    #[error("{place}: {message}")]
    Value {
        /// `--deadlines-connect` or `HEARTH_DEADLINES_CONNECT`.
        place: String,
        /// What is wrong with the value.
        message: String,
    },
    /// The settings do not go together.
    #[error("{}", Lines(_0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong with settings that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, like `tls.key`.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
    /// Where it was set; none if it is the default.
    pub set_by: Option<Origin>,
}

/// `hearth.yaml:3:5`
struct At<'a>(&'a Path, u64, u64);

/// A problem a line.
struct Lines<'a>(&'a [Problem]);

// === impl ConfigError ===

impl ConfigError {
    /// Turns the YAML reader's error into ours. `text` is what the file holds.
    pub(super) fn in_file(file: &Path, text: &str, error: &YamlError) -> Self {
        let error = error.without_snippet();
        let location = error.location();
        let line = location.map_or(String::new(), |at| line_before(text, at.line(), at.column()));
        let message = match error {
            YamlError::SerdeUnknownField { field, expected, .. } => {
                format!(
                    "unknown key `{field}`{}",
                    suggestion(known_key(field, expected).as_deref())
                )
            }
            YamlError::SerdeUnknownVariant { variant, expected, .. } => {
                format!("`{variant}` is not one of {}", expected.join(", "))
            }
            other => words::plain(other, &line),
        };
        Self::File {
            file: file.to_owned(),
            line: location.map_or(0, |at| at.line()),
            column: location.map_or(0, |at| at.column()),
            message,
        }
    }

    /// Says of each problem where its key was set.
    pub(super) fn set_by(mut self, origins: &BTreeMap<String, Origin>) -> Self {
        if let Self::Invalid(problems) = &mut self {
            for problem in problems {
                problem.set_by = origins.get(problem.key).cloned();
            }
        }
        self
    }

    /// A variable that is no key.
    pub(super) fn unknown_variable(name: String) -> Self {
        // Without the beginning that all have: it would make any two of them alike.
        let word = name.strip_prefix(ENV_PREFIX).unwrap_or(&name);
        let bare = |key: &Key| key.env()[ENV_PREFIX.len()..].to_owned();
        let nearest = nearest(word, keys().iter().map(bare));
        Self::UnknownVariable { nearest: nearest.map(|word| format!("{ENV_PREFIX}{word}")), name }
    }
}

/// A line of the text up to a column, both counted from 1.
fn line_before(text: &str, line: u64, column: u64) -> String {
    let index = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    text.lines().nth(index(line)).unwrap_or_default().chars().take(index(column)).collect()
}

/// The key that was meant: one of the section's own, or one of another section.
fn known_key(field: &str, section: &[&str]) -> Option<String> {
    nearest(field, section.iter().map(|&name| name.to_owned())).or_else(|| {
        let elsewhere = keys().iter().find(|key| key.path.last().is_some_and(|it| it == field));
        elsewhere.map(Key::name).or_else(|| nearest(field, keys().iter().map(Key::name)))
    })
}

pub(super) fn nearest(word: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|known| (strsim::jaro_winkler(word, &known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => "; `hearth config` lists them all".to_owned(),
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        match &self.set_by {
            Some(place) => write!(f, " (set by {place})"),
            None => Ok(()),
        }
    }
}

// === impl At ===

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, line, column) = self;
        match (line, column) {
            (0, _) => write!(f, "{}", file.display()),
            _ => write!(f, "{}:{line}:{column}", file.display()),
        }
    }
}

// === impl Lines ===

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(f, "{before}{problem}")?;
        }
        Ok(())
    }
}
