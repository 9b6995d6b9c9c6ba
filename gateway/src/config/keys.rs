//! Every key that can be set, found in the JSON schema of [`Config`] and in its default.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// What the names of environment variables begin with.
pub(super) const ENV_PREFIX: &str = "HEARTH_";

/// The environment variable that names the configuration file. It is no key: a file cannot say
/// which file to read.
pub const CONFIG_ENV: &str = "HEARTH_CONFIG";

/// One key that holds a value.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its names from the outermost section to the key.
    pub path: Vec<String>,
    /// Its doc comment.
    pub doc: String,
    /// Its default.
    pub default: Value,
    /// The shape of its value.
    pub kind: Kind,
    /// Whether `null` (nothing) is a value.
    pub nullable: bool,
    /// For a key that takes one of some words: the words, each with its doc comment.
    pub choices: Vec<(String, String)>,
}

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string: taken as it stands.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A list; of strings it may be written `a,b`.
    List,
    /// A map.
    Map,
}

/// A section or the whole configuration, with what it holds in the order of the fields.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Section { name: String, doc: String, nodes: Vec<Node> },
    Key(Key),
}

/// All keys, in the order of the reference.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = Vec::new();
        flatten(tree(), &mut keys);
        keys
    });
    &KEYS
}

/// The keys in their sections.
pub(super) fn tree() -> &'static [Node] {
    static TREE: LazyLock<Vec<Node>> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
        section(&schema, &Config::default().to_json(), &[])
    });
    &TREE
}

fn flatten(nodes: &[Node], into: &mut Vec<Key>) {
    for node in nodes {
        match node {
            Node::Section { nodes, .. } => flatten(nodes, into),
            Node::Key(key) => into.push(key.clone()),
        }
    }
}

fn section(schema: &Value, default: &Value, path: &[String]) -> Vec<Node> {
    let properties = schema["properties"].as_object().into_iter().flat_map(Map::iter);
    properties.map(|(name, schema)| node(name, schema, &default[name], path)).collect()
}

fn node(name: &str, schema: &Value, default: &Value, path: &[String]) -> Node {
    let path = [path, &[name.to_owned()]].concat();
    let doc = unwrap_lines(schema["description"].as_str().unwrap_or_default());
    if schema.get("properties").is_some() {
        let nodes = section(schema, default, &path);
        return Node::Section { name: name.to_owned(), doc, nodes };
    }
    let mut types = Vec::new();
    collect_types(schema, &mut types);
    let is = |name: &str| types.contains(&name);
    let kind = match () {
        () if is("array") => Kind::List,
        () if is("object") => Kind::Map,
        () if is("string") => Kind::Text,
        () if is("boolean") => Kind::Switch,
        () => Kind::Number,
    };
    let default = default.clone();
    Node::Key(Key { path, doc, default, kind, nullable: is("null"), choices: choices(schema) })
}

/// The types of a schema, those of its alternatives included.
fn collect_types<'a>(schema: &'a Value, into: &mut Vec<&'a str>) {
    match &schema["type"] {
        Value::String(name) => into.push(name),
        Value::Array(names) => into.extend(names.iter().filter_map(Value::as_str)),
        _ => {}
    }
    for alternatives in ["anyOf", "oneOf"] {
        let alternatives = schema[alternatives].as_array().into_iter().flatten();
        alternatives.for_each(|schema| collect_types(schema, into));
    }
}

/// The words of an enum whose variants carry doc comments: `oneOf` with a `const` each.
fn choices(schema: &Value) -> Vec<(String, String)> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    variants
        .filter_map(|variant| {
            let doc = variant["description"].as_str().unwrap_or_default();
            Some((variant["const"].as_str()?.to_owned(), unwrap_lines(doc)))
        })
        .collect()
}

/// A doc comment without its line breaks, so that each reader wraps it as it likes.
fn unwrap_lines(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Key ===

impl Key {
    /// `deadlines.connect`
    #[must_use]
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// `HEARTH_DEADLINES_CONNECT`
    #[must_use]
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.path.join("_").to_uppercase())
    }

    /// `deadlines-connect`, without the two dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.path.join("-").replace('_', "-")
    }

    /// `/deadlines/connect`: where the value is in the settings as JSON (RFC 6901).
    #[must_use]
    pub fn pointer(&self) -> String {
        self.path.iter().fold(String::new(), |pointer, name| pointer + "/" + name)
    }

    /// Reads a value from the text of a flag or an environment variable.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        if self.nullable && matches!(text, "" | "null") {
            return Ok(Value::Null);
        }
        let yaml = || serde_saphyr::from_str::<Value>(text).unwrap_or(Value::Null);
        let (value, expected) = match self.kind {
            Kind::Text => return Ok(Value::from(text)),
            Kind::List if !text.starts_with(['[', '{', '-']) => return Ok(comma_separated(text)),
            Kind::List => (Some(yaml()).filter(Value::is_array), "`a,b` or a YAML list"),
            Kind::Map if text.is_empty() => return Ok(Value::Object(Map::new())),
            Kind::Map => (Some(yaml()).filter(Value::is_object), "a YAML map like `{a: b}`"),
            Kind::Number => (Some(yaml()).filter(Value::is_number), "a number"),
            Kind::Switch => (switch(text).map(Value::Bool), "`true` or `false`"),
        };
        value.ok_or_else(|| format!("`{text}` is not {expected}"))
    }
}

/// A switch as people write it in a variable or a flag: YAML's words, or 1 and 0.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn comma_separated(text: &str) -> Value {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect()
}
