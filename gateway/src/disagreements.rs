//! Where the settings and the pods disagree: what is told and cannot be used, and what is configured
//! for nobody. `hearth doctor`, the log and `/readyz` say what is found here.

use std::collections::BTreeSet;
use std::fmt;
use std::future;
use std::sync::Arc;

use router::feed::kv_events::Trust;
use router::pool::{Endpoint, ModelCard};
use router::{Router, TokenizerReport};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disagreement {
    /// Pods tell what they hold of this model's prompts, and nobody here can make its tokens.
    NoTokenizer(String),
    /// The tokenizer that is configured for this model is not here.
    AbsentTokenizer {
        /// The model.
        model: String,
        /// Where it should come from, as configured.
        source: String,
        /// Why it did not; none: it is on its way.
        trouble: Option<String>,
    },
    /// A tokenizer is configured for this model, and no pod lists it.
    UnusedTokenizer {
        /// As configured.
        model: String,
        /// What pods list.
        listed: Vec<String>,
    },
}

/// As much of a pod as can disagree with the settings.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The models that it lists, each with the one that it adapts.
    pub models: Vec<(String, Option<String>)>,
    /// Whether it publishes KV events.
    pub tells: bool,
    /// Whether it has been asked for its models, whatever it said.
    pub is_asked: bool,
}

/// What the pods and the settings disagree about.
pub fn disagreements(pods: &[Claims], reports: &[TokenizerReport]) -> Vec<Disagreement> {
    let tokenizers: BTreeSet<&str> = reports.iter().map(|it| &*it.model).collect();
    let absent = reports.iter().filter(|it| it.state != "ready");
    let mut found: BTreeSet<_> = absent
        .map(|it| Disagreement::AbsentTokenizer {
            model: it.model.to_string(),
            source: it.source.clone(),
            trouble: it.trouble.clone(),
        })
        .collect();
    for pod in pods.iter().filter(|pod| pod.tells) {
        let bare = pod.models.iter().filter(|(model, parent)| {
            let names = [Some(model), parent.as_ref()].into_iter().flatten();
            !names.into_iter().any(|name| tokenizers.contains(&**name))
        });
        // An adapter goes by the tokenizer of its base.
        let base =
            |(model, parent): &(String, Option<String>)| parent.as_ref().unwrap_or(model).clone();
        found.extend(bare.map(base).map(Disagreement::NoTokenizer));
    }
    let cards = pods.iter().flat_map(|pod| &pod.models);
    let listed: BTreeSet<&str> = cards
        .flat_map(|(model, parent)| [Some(model), parent.as_ref()])
        .flatten()
        .map(String::as_str)
        .collect();
    // A pod that was not asked yet may list what is missing.
    if !listed.is_empty() && pods.iter().all(|pod| pod.is_asked) {
        found.extend(tokenizers.difference(&listed).map(|model| Disagreement::UnusedTokenizer {
            model: (*model).to_owned(),
            listed: listed.iter().map(|model| (*model).to_owned()).collect(),
        }));
    }
    found.into_iter().collect()
}

/// Logs what shows, each once, for as long as there are pods to listen to.
pub async fn log(router: Arc<Router>) {
    let mut changed = router.pool().changed();
    let mut logged = BTreeSet::new();
    loop {
        let snapshot = Arc::clone(&router.pool().snapshot());
        let pods: Vec<_> = snapshot.endpoints.iter().map(|pod| Claims::from(&**pod)).collect();
        for found in disagreements(&pods, &router.tokenizers().report()) {
            // Who fetches tokenizers says of each try what came of it.
            let is_said = matches!(found, Disagreement::AbsentTokenizer { .. });
            if !is_said && !logged.contains(&found) {
                tracing::warn!(fix = found.fix(), "{}", found.what());
                logged.insert(found);
            }
        }
        if changed.changed().await.is_err() {
            return future::pending().await;
        }
    }
}

// === impl Disagreement ===

impl Disagreement {
    /// One word for it, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoTokenizer(_) => "no_tokenizer",
            Self::AbsentTokenizer { .. } => "absent_tokenizer",
            Self::UnusedTokenizer { .. } => "unused_tokenizer",
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::NoTokenizer(model) => {
                format!("no tokenizer for model {model}: KV events unused, trust stays approximate")
            }
            Self::AbsentTokenizer { model, source, trouble } => {
                let why = trouble.as_deref().unwrap_or("it is being downloaded");
                format!(
                    "the tokenizer of model {model}, {source}, is not here: {why}; until then its \
                     prompts are matched by their bytes and trust stays approximate"
                )
            }
            Self::UnusedTokenizer { model, listed } => {
                format!(
                    "a tokenizer for model {model}, which no pod lists; they list {}",
                    listed.join(", ")
                )
            }
        }
    }

    /// What to do.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoTokenizer(model) => {
                format!("set `tokenizers: {{{model}: DIR}}`, or `hf:OWNER/NAME` instead of DIR")
            }
            Self::AbsentTokenizer { model, .. } => format!(
                "is the name right, does the repository want a token (HF_TOKEN), and can it be \
                 reached (HF_ENDPOINT)? Or set `tokenizers: {{{model}: DIR}}`"
            ),
            Self::UnusedTokenizer { .. } => {
                "set `tokenizers` for the name that pods list (--served-model-name)".to_owned()
            }
        }
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.fix())
    }
}

// === impl Claims ===

impl From<&Endpoint> for Claims {
    fn from(endpoint: &Endpoint) -> Self {
        let names =
            |card: &ModelCard| (card.id.to_string(), card.parent.as_ref().map(ToString::to_string));
        Self {
            models: endpoint.models.iter().map(names).collect(),
            tells: endpoint.kv_events.trust() != Trust::Approximate,
            is_asked: !endpoint.models.is_empty() || endpoint.record.last_failure.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(models: &[(&str, Option<&str>)], tells: bool) -> Claims {
        let owned = |(model, parent): &(&str, Option<&str>)| {
            ((*model).to_owned(), parent.map(ToOwned::to_owned))
        };
        Claims { models: models.iter().map(owned).collect(), tells, is_asked: true }
    }

    fn report(model: &str, state: &'static str, trouble: Option<&str>) -> TokenizerReport {
        let trouble = trouble.map(ToOwned::to_owned);
        TokenizerReport { model: model.into(), source: "hf:a/b".into(), state, trouble }
    }

    fn found(pods: &[Claims], tokenizers: &[&str]) -> Vec<String> {
        let ready: Vec<_> = tokenizers.iter().map(|model| report(model, "ready", None)).collect();
        disagreements(pods, &ready).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tokenizer_that_is_configured_and_not_here_is_told() {
        let pods = [pod(&[("qwen", None)], true)];
        for (state, trouble, why) in
            [("failed", Some("404 Not Found"), "404 Not Found"), ("waiting", None, "downloaded")]
        {
            let found = disagreements(&pods, &[report("qwen", state, trouble)]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].code(), "absent_tokenizer");
            let said = found[0].to_string();
            assert!(said.contains("qwen, hf:a/b, is not here") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn events_without_a_tokenizer_are_told_once_for_each_base_model() {
        let adapted = [("qwen", None), ("lora", Some("qwen"))];
        let pods = [pod(&adapted, true), pod(&adapted, true), pod(&[("mute", None)], false)];
        assert_eq!(
            found(&pods, &[]),
            ["no tokenizer for model qwen: KV events unused, trust stays approximate; \
              set `tokenizers: {qwen: DIR}`, or `hf:OWNER/NAME` instead of DIR"]
        );
        assert_eq!(found(&pods, &["qwen"]), [""; 0], "an adapter goes by its base");
        assert_eq!(found(&pods, &["lora", "qwen"]), [""; 0]);
    }

    #[test]
    fn a_tokenizer_for_nobody_is_told_when_every_pod_was_asked() {
        let asked = pod(&[("qwen", None)], false);
        let unasked = Claims { is_asked: false, ..pod(&[], false) };
        let down = pod(&[], false);
        assert_eq!(found(&[asked.clone(), unasked], &["qwem"]), [""; 0]);
        assert_eq!(found(std::slice::from_ref(&down), &["qwem"]), [""; 0], "nobody lists anything");
        assert_eq!(
            found(&[asked, down], &["qwem", "qwen"]),
            ["a tokenizer for model qwem, which no pod lists; they list qwen; \
              set `tokenizers` for the name that pods list (--served-model-name)"]
        );
    }
}
