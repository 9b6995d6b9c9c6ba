//! From what a pod says to what is wrong with it. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use router::discovery::KubernetesSettings;
use router::pool::Role;
use serde::Serialize;

use super::examine::{Events, ExamineError, Facts};
use super::tokens::Agreement;
use crate::disagreements::Disagreement;

/// Something that is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One word for it, for programs.
    pub code: &'static str,
    /// What.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Clocks further apart make logs of both sides hard to put together.
const MAX_SKEW_S: i64 = 5;

// === impl Finding ===

impl Finding {
    fn new(code: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, what: what.into(), fix: fix.into() }
    }

    pub(super) fn discovery(error: &str, settings: &KubernetesSettings) -> Self {
        let fix = if !settings.enabled {
            "is the host name in `endpoints` right, and can it be resolved from where you stand?"
        } else if error.contains("RBAC") {
            "apply manifests/base/role.yaml in the pods' namespace"
        } else {
            "check `kubernetes.*` in the configuration, and the way to the API server (port 443 or \
             6443 in the NetworkPolicy)"
        };
        let code = if error.contains("RBAC") { "rbac" } else { "discovery" };
        Self::new(code, error, fix)
    }

    pub(super) fn no_pods(settings: &KubernetesSettings) -> Self {
        let what = if settings.enabled {
            format!("no pod matches `{}`", settings.selector)
        } else {
            "no endpoint resolves to an address".to_owned()
        };
        let fix = if settings.enabled {
            "compare with `kubectl get pods --show-labels`"
        } else {
            "correct `endpoints`"
        };
        Self::new("no_pods", what, fix)
    }

    pub(super) fn split(what: impl fmt::Display) -> Self {
        let fix = "the connector of `split.connector` in --kv-transfer-config of both pods, and \
                   their side channel's port in the NetworkPolicy";
        Self::new("split", what.to_string(), fix)
    }

    pub(super) fn tensor_parallel(prefill: u64, decode: u64) -> Self {
        let what = format!("{prefill} tensor-parallel ranks prefill for {decode}");
        Self::new("tensor_parallel", what, "one --tensor-parallel-size that divides the other")
    }

    pub(super) fn lease(used: Duration) -> Self {
        let what = format!("it gave blocks up within {} s that nobody had read", used.as_secs());
        let fix = "`split.lease` no longer than the pods' kv_lease_duration";
        Self::new("lease", what, fix)
    }

    pub(super) fn disagreement(it: &Disagreement) -> Self {
        Self::new(it.code(), it.what(), it.fix())
    }

    pub(super) fn unreachable(error: &ExamineError) -> Self {
        let fix = match error {
            ExamineError::Dropped => {
                "a NetworkPolicy or firewall drops it: allow this pod's port from where you stand"
            }
            ExamineError::Refused => "is vLLM up, and is this its --port?",
            ExamineError::Status(_) => "is this vLLM's OpenAI server? Does it want a key?",
            ExamineError::NoAnswer(_) => "read the pod's log",
        };
        Self::new("unreachable", error.to_string(), fix)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; fix: {}", self.what, self.fix)
    }
}

/// What is wrong with a pod, seen among all that answer.
pub(super) fn pod<'a>(facts: &Facts, all: impl Iterator<Item = &'a Facts>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut bad = |code, what: String, fix: &str| found.push(Finding::new(code, what, fix));
    if facts.models.is_empty() {
        bad("no_model", "it lists no model".to_owned(), "wait until it has loaded one");
    }
    if facts.prefix_caching == Some(false) {
        bad("prefix_caching", "prefix caching is off".to_owned(), "--enable-prefix-caching");
    }
    if facts.token_details == Some(false) {
        let what = "its answers do not say how many tokens were cached";
        bad("token_details", what.to_owned(), "--enable-prompt-tokens-details");
    }
    match facts.events {
        Events::On { replay: true } => {}
        Events::On { replay: false } => {
            let what = "KV events without replay: what is missed is lost";
            bad("no_replay", what.to_owned(), "\"replay_endpoint\" in --kv-events-config");
        }
        Events::Off | Events::Unknown => {
            let what = "no KV events: only what it was sent is known of it";
            bad("no_events", what.to_owned(), "--kv-events-config with publisher zmq");
        }
        Events::Unreachable { port } => {
            let what = format!("its KV events on port {port} cannot be dialled");
            bad("events_unreachable", what, "allow that port in its NetworkPolicy");
        }
    }
    let Agreement { ids, text, chat } = facts.tokens;
    if ids == Some(false) || text == Some(false) {
        let what = "it makes other tokens of a text than the gateway: nothing would be found again";
        bad("tokenizer", what.to_owned(), "the same model and revision in `tokenizers`");
    } else if chat == Some(false) {
        let what = "its chat template is not the gateway's: no chat would be found again";
        bad(
            "template",
            what.to_owned(),
            "its --chat-template in the folder that `tokenizers` names",
        );
    }
    if let Some(skew_s) = facts.clock_skew_s.filter(|skew| skew.abs() > MAX_SKEW_S) {
        bad("clock", format!("its clock differs by {skew_s} s"), "NTP on its node");
    }
    if facts.keeps_alive == Some(false) {
        let what = "it closes idle connections before the gateway does: requests will meet a reset";
        bad("keep_alive", what.to_owned(), "deadlines.upstream_idle below its keep-alive");
    }
    found.extend(odd_one_out(facts, all));
    found
}

/// Where it differs from most others that serve the same model.
fn odd_one_out<'a>(facts: &Facts, all: impl Iterator<Item = &'a Facts>) -> Vec<Finding> {
    let all: Vec<_> = all.collect();
    let peers: Vec<_> = all.iter().filter(|it| it.models == facts.models).collect();
    let mut found = Vec::new();
    let mut differs = |code, name: &str, own: Option<String>, others: Vec<Option<String>>, fix| {
        if let (Some(own), Some(usual)) = (own, most(others.into_iter().flatten()))
            && own != usual
        {
            let what = format!("its {name} is {own}, the others' is {usual}");
            found.push(Finding::new(code, what, fix));
        }
    };
    let models = |it: &Facts| (!it.models.is_empty()).then(|| it.models.join(", "));
    let of_all = all.iter().map(|it| models(it)).collect();
    differs("model", "model", models(facts), of_all, "one --served-model-name in one fleet");
    let size = |it: &Facts| it.block_size.map(|size| size.to_string());
    let of_peers = peers.iter().map(|it| size(it)).collect();
    differs("block_size", "block size", size(facts), of_peers, "the same --block-size everywhere");
    let of_peers = peers.iter().map(|it| it.version.clone()).collect();
    let fix = "one image: KV blocks do not travel between versions";
    differs("version", "version", facts.version.clone(), of_peers, fix);
    found
}

/// The most frequent one, if it is more frequent than any other.
fn most(texts: impl Iterator<Item = String>) -> Option<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let top = *counts.values().max()?;
    let mut winners = counts.into_iter().filter(|(_, count)| *count == top);
    let winner = winners.next()?;
    winners.next().is_none().then_some(winner.0)
}

/// What is wrong with the roles of all pods together.
pub(super) fn roles(roles: &[Role]) -> Option<Finding> {
    let count = |role| roles.iter().filter(|it| **it == role).count();
    let (prefill, decode, both) = (count(Role::Prefill), count(Role::Decode), count(Role::Both));
    if prefill > 0 && decode + both == 0 {
        let what = format!("{prefill} prefill pods and none that decodes");
        return Some(Finding::new("no_decode", what, "label decode pods llm-d.ai/role=decode"));
    }
    if prefill + decode > 0 && both > 0 {
        let what = format!("{both} of {} pods have no role", roles.len());
        return Some(Finding::new("role_missing", what, "label them llm-d.ai/role=decode"));
    }
    None
}
