//! Lays the layers over each other: default, file, environment, flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::{CONFIG_ENV, ENV_PREFIX, Kind};
use super::lines::Lines;
use super::words::{WHOLE_NUMBER, plain_text};
use super::{Config, ConfigError, Key, keys};

/// Settings that can be started with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// Their fingerprint, see [`Config::hash`].
    pub hash: String,
    /// Where each key that is not a default was set, by its name.
    pub origins: BTreeMap<String, Origin>,
}

/// The layer that set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file, and the line in it, from 1; 0 if unknown.
    File(PathBuf, u64),
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
}

/// What a flag says: a key, and the text of its value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// Its value as written.
    pub text: String,
}

/// The settings so far, as JSON.
struct Layers {
    json: Value,
    origins: BTreeMap<String, Origin>,
}

/// As [`Config::load`], over other settings than the defaults.
///
/// # Errors
/// See [`Config::load`].
pub fn load_over(
    base: &Config,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[Setting],
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers { json: base.to_json(), origins: BTreeMap::new() };
    if let Some(file) = file {
        layers.lay_file(file)?;
    }
    for (name, text) in variables(env) {
        let key = key_of(&name)?;
        layers.lay_text(key, &text, Origin::Variable(name))?;
    }
    for Setting { key, text } in flags {
        layers.lay_text(key, text, Origin::Flag(format!("--{}", key.flag())))?;
    }
    let config = read_back(&layers.json).expect("each layer was read back when it was laid");
    config.validate().map_err(|error| error.set_by(&layers.origins))?;
    Ok(Loaded { hash: config.hash(), config, origins: layers.origins })
}

/// The environment, without variables that are not UTF-8: none of ours can be one, and
/// [`std::env::vars`] panics at the first.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let utf8 = |(name, text): (OsString, OsString)| {
        Some((name.into_string().ok()?, text.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8)
}

/// Our variables, in the order of their names, so that the first complaint is always the same.
fn variables(env: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    env.into_iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) && name != CONFIG_ENV)
        .filter(|(name, text)| !is_service_link(name, text))
        .collect()
}

fn key_of(variable: &str) -> Result<&'static Key, ConfigError> {
    let key = keys().iter().find(|key| key.env() == variable);
    key.ok_or_else(|| ConfigError::unknown_variable(variable.to_owned()))
}

/// Whether Kubernetes set this variable: in every container it describes each Service of the
/// namespace, so a Service named `hearth` gives `HEARTH_SERVICE_HOST=10.0.0.1`,
/// `HEARTH_SERVICE_PORT_HTTP=80`, `HEARTH_PORT=tcp://10.0.0.1:80` and
/// `HEARTH_PORT_80_TCP_ADDR=10.0.0.1`.
fn is_service_link(name: &str, text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let port = || {
        let (_, rest) = name.split_once("_PORT_")?;
        let (number, protocol) = rest.split_once('_')?;
        let protocol = protocol.split('_').next()?;
        Some(is_number(number) && matches!(protocol, "TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || (name.contains("_SERVICE_PORT") && is_number(text))
        || (name.ends_with("_PORT") && address)
        || port().unwrap_or(false)
}

fn read_back(json: &Value) -> serde_json::Result<Config> {
    serde_json::from_value(json.clone())
}

// === impl Layers ===

impl Layers {
    fn lay_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let in_file = |error| ConfigError::in_file(file, &text, &error);
        // Untyped, to know which keys are written; typed, for values and complaints with lines.
        let written: Value = serde_saphyr::from_str(&text).map_err(in_file)?;
        if written.is_null() {
            return Ok(());
        }
        let lines: Lines = serde_saphyr::from_str(&text).map_err(in_file)?;
        let typed = serde_saphyr::from_str::<Config>(&text).map_err(in_file)?.to_json();
        for key in keys() {
            let pointer = key.pointer();
            if written.pointer(&pointer).is_some() {
                let value = typed.pointer(&pointer).expect("a key is in every configuration");
                let origin = Origin::File(file.to_owned(), lines.of(&key.path));
                self.set(key, value.clone(), origin);
            }
        }
        Ok(())
    }

    fn lay_text(&mut self, key: &Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let complain = |message| ConfigError::Value { place: origin.to_string(), message };
        let value = key.read(text).map_err(complain)?;
        let appends = self.origins.get(&key.name()) == Some(&origin);
        let value = match (appends, self.json.pointer(&key.pointer()), value) {
            // `--endpoints a --endpoints b`
            (true, Some(Value::Array(before)), Value::Array(more)) => {
                before.iter().cloned().chain(more).collect()
            }
            (_, _, value) => value,
        };
        self.set(key, value, origin.clone());
        // Any number is read where fractions may be.
        let words = |error: serde_json::Error| match key.kind {
            Kind::Number => WHOLE_NUMBER.to_owned(),
            _ => plain_text(error.to_string(), text),
        };
        read_back(&self.json).map(drop).map_err(|error| complain(words(error)))
    }

    fn set(&mut self, key: &Key, value: Value, origin: Origin) {
        let place = self.json.pointer_mut(&key.pointer());
        *place.expect("a key is in every configuration") = value;
        self.origins.insert(key.name(), origin);
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, 0) => write!(f, "{}", file.display()),
            Self::File(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}
