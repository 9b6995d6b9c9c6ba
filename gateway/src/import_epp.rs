//! `hearth import-epp`: an Endpoint Picker's configuration, as far as it says something to us.
//!
//! Most of it tunes what Hearth learns from the pods; each such part gets a line that says so, so
//! that nothing is lost in silence.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

/// What came of one or more files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    settings: BTreeMap<&'static str, String>,
    tokenizers: BTreeSet<String>,
    notes: Vec<String>,
    configs: usize,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no YAML.
    #[error("{file}:{line}: {message}")]
    Yaml {
        /// The file.
        file: String,
        /// Where its document begins.
        line: usize,
        /// Why.
        message: String,
    },
    /// There is no EndpointPickerConfig in it.
    #[error("{file}: no EndpointPickerConfig, neither by itself nor in a ConfigMap")]
    Nothing {
        /// The file.
        file: String,
    },
}

/// A document, and where it stands.
struct Place<'a> {
    file: &'a str,
    /// The line before its first.
    above: usize,
    text: &'a str,
}

const KIND: &str = "EndpointPickerConfig";

// === impl Place ===

impl Place<'_> {
    /// `FILE:LINE` of the last of these words, each looked for from the line of the one before on; a
    /// word that is not there is passed over.
    fn at(&self, path: &[&str]) -> String {
        let lines: Vec<_> = self.text.lines().collect();
        let line = path.iter().fold(0, |from, word| {
            let found = lines.iter().skip(from).position(|line| line.contains(word));
            found.map_or(from, |further| from + further)
        });
        format!("{}:{}", self.file, self.above + line + 1)
    }
}

// === impl Import ===

impl Import {
    /// Takes one file in.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), ImportError> {
        let before = self.configs;
        let mut above = 0;
        for document in text.split("\n---") {
            let place = Place { file, above, text: document };
            let value: Value = if document.trim().is_empty() {
                Value::Null
            } else {
                serde_saphyr::from_str(document).map_err(|error| {
                    let (file, line) = (file.to_owned(), above + 1);
                    ImportError::Yaml { file, line, message: error.to_string() }
                })?
            };
            self.document(&place, &value);
            above += document.matches('\n').count() + 1;
        }
        if self.configs == before {
            return Err(ImportError::Nothing { file: file.to_owned() });
        }
        Ok(())
    }

    fn document(&mut self, place: &Place<'_>, value: &Value) {
        if value["kind"] == KIND {
            self.config(place, value);
        }
        for text in
            value["data"].as_object().into_iter().flatten().filter_map(|(_, it)| it.as_str())
        {
            // Lines are those of the file around it, whose text holds this one indented.
            if let Ok(inner) = serde_saphyr::from_str::<Value>(text)
                && inner["kind"] == KIND
            {
                self.config(place, &inner);
            }
        }
        self.arguments(place);
    }

    /// Go's `flag` stops at the first word that is no flag: `--x`, `"false"` as two items of a list
    /// drops everything behind it.
    fn arguments(&mut self, place: &Place<'_>) {
        let lines = place.text.lines().map(|line| line.trim().trim_start_matches("- "));
        let mut last = "";
        for line in lines {
            let bare = |text: &str| text.trim_matches(['"', '\'']).to_owned();
            if bare(last).starts_with("--") && matches!(bare(line).as_str(), "true" | "false") {
                let at = place.at(&[last]);
                self.notes.push(format!(
                    "{at}: `{} {}` as two arguments: the picker reads no flag after it",
                    bare(last),
                    bare(line)
                ));
            }
            last = line;
        }
    }

    fn config(&mut self, place: &Place<'_>, config: &Value) {
        self.configs += 1;
        for plugin in config["plugins"].as_array().into_iter().flatten() {
            self.plugin(place, plugin);
        }
        for profile in config["schedulingProfiles"].as_array().into_iter().flatten() {
            let of = format!("name: {}", profile["name"].as_str().unwrap_or_default());
            for plugin in profile["plugins"].as_array().into_iter().flatten() {
                let name = plugin["pluginRef"].as_str().unwrap_or_default();
                if let Some(weight) = plugin["weight"].as_f64() {
                    let its = format!("pluginRef: {name}");
                    let at = place.at(&["schedulingProfiles", &of, &its, "weight"]);
                    let why = "Hearth costs every pod in milliseconds, there is nothing to weigh";
                    self.notes.push(format!("{at}: {name}: weight {weight}: {why}"));
                }
            }
        }
        for (key, why) in [
            ("flowControl", "bounds are `limits.*`; there are no priority bands"),
            ("featureGates", "nothing is behind a gate"),
            ("dataLayer", "pods are found by `kubernetes.*` and asked by `pool.*`"),
            ("requestHandler", "OpenAI's and Anthropic's APIs are read always"),
        ] {
            if !config[key].is_null() {
                let at = place.at(&[KIND, &format!("{key}:")]);
                self.notes.push(format!("{at}: {key}: not mapped: {why}"));
            }
        }
    }

    fn plugin(&mut self, place: &Place<'_>, plugin: &Value) {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let parameters = &plugin["parameters"];
        self.tokens(place, kind, parameters);
        let events =
            [&parameters["kvEventsConfig"], &parameters["indexerConfig"]["kvEventsConfig"]];
        let ports = events.map(|it| &it["podDiscoveryConfig"]);
        let port = |key: &str| ports.iter().find_map(|it| it[key].as_u64());
        if let Some(port) = port("socketPort") {
            self.settings.insert("kv_events.port", port.to_string());
        }
        if let Some(port) = port("replaySocketPort") {
            self.settings.insert("kv_events.replay_port", port.to_string());
        }
        // A picker that listens, for pods that dial.
        let listens = events.iter().find_map(|it| it["zmqEndpoint"].as_str());
        if let Some((_, port)) = listens.and_then(|at| at.strip_prefix("tcp://*")?.rsplit_once(':'))
        {
            self.settings.insert("kv_events.bind", format!("0.0.0.0:{port}"));
        }
        if let Some(tokens) = parameters["nonCachedTokens"].as_u64() {
            self.settings.insert("split.min_uncached_tokens", tokens.to_string());
        }
        for (key, why) in PARAMETERS {
            if !parameters[key].is_null() {
                let at = place.at(&[kind, key]);
                self.notes.push(format!("{at}: {kind}: {key} is not taken over: {why}"));
            }
        }
        let Some(verdict) = meaning(kind) else {
            let at = place.at(&["plugins", kind]);
            self.notes.push(format!("{at}: {kind}: unknown to Hearth, not mapped"));
            return;
        };
        match verdict {
            Meaning::Set(key, value) => {
                self.settings.insert(key, value.to_owned());
            }
            Meaning::Learned(why) => {
                let at = place.at(&["plugins", kind]);
                self.notes.push(format!("{at}: {kind}: {why}"));
            }
        }
    }

    /// Where prompts are tokenized, and the mistake that kept v0.2 from ever doing it.
    fn tokens(&mut self, place: &Place<'_>, kind: &str, parameters: &Value) {
        if let Some(model) = parameters["modelName"].as_str() {
            self.tokenizers.insert(model.to_owned());
        }
        if parameters["mode"] == "cache_tracking" && !parameters["tokenProcessorConfig"].is_null() {
            let at = place.at(&[kind, "tokenProcessorConfig"]);
            self.notes.push(format!(
                "{at}: tokenProcessorConfig stands one level too high: the picker reads it under \
                 indexerConfig only, and has never used this one. Hearth reads block sizes from the \
                 pods"
            ));
        }
    }

    /// The configuration of Hearth, with a comment for each part that does not map.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text =
            String::from("# Made from an EndpointPickerConfig by `hearth import-epp`.\n");
        for note in &self.notes {
            writeln!(text, "# {note}").expect("a string takes all that is written");
        }
        text.push_str("kubernetes:\n  enabled: true\n");
        let mut section = "";
        for (key, value) in &self.settings {
            let (room, name) = key.split_once('.').expect("a key has a section");
            if room != section {
                text.push_str(room);
                text.push_str(":\n");
                section = room;
            }
            writeln!(text, "  {name}: {value}").expect("a string takes all that is written");
        }
        if !self.tokenizers.is_empty() {
            text.push_str("tokenizers:\n");
        }
        for model in &self.tokenizers {
            writeln!(text, "  {model}: hf:{model}").expect("a string takes all that is written");
        }
        text
    }
}

/// Parameters that are set to no end here, and why.
const PARAMETERS: [(&str, &str); 6] = [
    ("hashBlockSize", "block sizes are the pods' own"),
    ("hashSeed", "no hash leaves Hearth"),
    ("maxPrefixBlocksToMatch", "whole prompts are matched"),
    ("lruCapacityPerServer", "capacities are the pods' own, and memory is `kv_index.*`"),
    ("threshold", "what pays is learned from the pods' answers"),
    ("indexerConfig", "memory is `kv_index.*`"),
];

/// What a plugin is to us.
enum Meaning {
    Set(&'static str, &'static str),
    Learned(&'static str),
}

fn meaning(kind: &str) -> Option<Meaning> {
    use Meaning::{Learned, Set};
    Some(match kind {
        "prefix-cache-scorer"
        | "precise-prefix-cache-scorer"
        | "precise-prefix-cache-producer"
        | "approx-prefix-cache-producer"
        | "kv-cache-scorer" => Set("routing.policy", "warm"),
        "random-picker" => Learned("pods of equal cost share by recent work, not by chance"),
        "max-score-picker" | "weighted-random-picker" => Learned("the least cost wins, always"),
        "queue-scorer"
        | "load-aware-scorer"
        | "active-request-scorer"
        | "running-requests-size-scorer"
        | "kv-cache-utilization-scorer"
        | "no-hit-lru-scorer" => Learned("load is what Hearth booked itself, in the same cost"),
        "session-affinity-scorer" => {
            Learned("sessions are soft: `routing.warm.session_tokens` says what one is worth")
        }
        "lora-affinity-scorer" => Learned("adapters are matched by model name and by their blocks"),
        "decode-filter" | "prefill-filter" | "by-label" | "by-label-selector" => {
            Learned("roles are read from the label llm-d.ai/role")
        }
        "prefill-header-handler"
        | "pd-profile-handler"
        | "disagg-profile-handler"
        | "prefix-based-pd-decider"
        | "always-disagg-pd-decider" => {
            Learned("whether a split pays is computed for each request, from learned rates")
        }
        "topology-extractor" | "topology-affinity-scorer" => {
            Learned("transfers between pods of one place and of two are learned apart")
        }
        "single-profile-handler" | "data-parallel-profile-handler" => {
            Learned("there are no profiles")
        }
        "token-producer" | "tokenizer" => {
            Learned("tokenized here; see `tokenizers` at the end, if it named a model")
        }
        "endpoint-notification-source" | "metrics-data-source" | "core-metrics-extractor" => {
            Learned("pods are watched and asked without being told to")
        }
        "concurrency-detector" | "utilization-detector" => {
            Learned("a busy pod says so itself (429, 503), and is not sent more for a while")
        }
        _ => return None,
    })
}
