//! The annotated reference: a configuration file with every key, its default and its other names.

use std::io::{self, Write};

use serde_json::Value;

use super::Key;
use super::keys::{Node, tree};

/// Width of the comments.
const WIDTH: usize = 96;

/// Writes a configuration file that says what every key is for and sets each to its default.
///
/// # Errors
/// Those of the writer.
pub fn write_reference(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# Every setting of Hearth with its default.")?;
    writeln!(out, "# A flag beats the environment, which beats this file.")?;
    writeln!(
        out,
        "# A variable HEARTH_* that is no setting stops the start. Those that Kubernetes sets for"
    )?;
    writeln!(
        out,
        "# a Service named `hearth` (HEARTH_PORT=tcp://..., HEARTH_SERVICE_HOST) are passed over."
    )?;
    write_nodes(out, tree(), 0)
}

fn write_nodes(out: &mut dyn Write, nodes: &[Node], depth: usize) -> io::Result<()> {
    for node in nodes {
        if depth == 0 {
            writeln!(out)?;
        }
        match node {
            Node::Section { name, doc, nodes } => {
                comment(out, depth, doc)?;
                writeln!(out, "{}{name}:", indent(depth))?;
                write_nodes(out, nodes, depth + 1)?;
            }
            Node::Key(key) => write_key(out, key, depth)?,
        }
    }
    Ok(())
}

fn write_key(out: &mut dyn Write, key: &Key, depth: usize) -> io::Result<()> {
    comment(out, depth, &key.doc)?;
    for (word, doc) in &key.choices {
        comment(out, depth, &format!("- {word}: {doc}"))?;
    }
    comment(out, depth, &format!("[{} --{}]", key.env(), key.flag()))?;
    let name = key.path.last().expect("a key has a name");
    // JSON is YAML, so the default can be written on one line.
    writeln!(out, "{}{name}: {}", indent(depth), scalar(&key.default))
}

/// A value as one line of YAML, without quotes where a word needs none.
fn scalar(value: &Value) -> String {
    let plain = |text: &str| {
        let readable = |it: char| it.is_ascii_alphanumeric() || "._/%-:[]".contains(it);
        text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(readable)
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        value => value.to_string(),
    }
}

fn comment(out: &mut dyn Write, depth: usize, text: &str) -> io::Result<()> {
    let indent = indent(depth);
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && indent.len() + 2 + line.len() + 1 + word.len() > WIDTH {
            writeln!(out, "{indent}# {line}")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.is_empty() { Ok(()) } else { writeln!(out, "{indent}# {line}") }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}
