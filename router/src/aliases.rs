//! Names of models that no pod lists: an alias stands for one model, or splits its requests among
//! several; a path stands for a name. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Other names of models, and paths that name one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelNames {
    /// Names of our own, as `{auto: {MODEL: 70, OTHER: 30}}`: of the requests that ask for `auto`, 70 %
    /// go to MODEL. A session stays with its model, and a change of weights moves no more sessions than
    /// it must. A model that no ready pod serves is passed over. The answer's `model` says which it was.
    pub aliases: BTreeMap<String, BTreeMap<String, u32>>,
    /// Path prefixes that name a model or an alias, whatever the body says, as `{/v1/1b: MODEL}`:
    /// `/v1/1b/chat/completions` and `/v1/1b/v1/chat/completions` are `/v1/chat/completions`.
    pub paths: BTreeMap<String, String>,
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// An alias without any weight.
    #[error("`{0}` stands for nothing: its weights are all 0")]
    Nothing(String),
    /// An alias that stands for an alias.
    #[error("`{alias}` stands for `{target}`, which is itself an alias")]
    Chain {
        /// Which.
        alias: String,
        /// What it stands for.
        target: String,
    },
    /// A prefix that is none.
    #[error("`{0}` is no path prefix: it begins with `/`, ends with none, and is not `/v1`")]
    Path(String),
}

// === impl ModelNames ===

impl ModelNames {
    /// What the alias stands for, for whoever has this key: always the same one, as long as `is_served`
    /// says the same. None: it is no alias. If none is served, what it would be if all were.
    #[must_use]
    pub fn resolve(
        &self,
        name: &str,
        key: &[u8],
        is_served: impl Fn(&str) -> bool,
    ) -> Option<&str> {
        let targets = self.aliases.get(name)?;
        let weighted = || targets.iter().filter(|(_, weight)| **weight > 0);
        let first = |(model, weight): &(&String, &u32)| arrival(key, model, **weight);
        let by_arrival = |a: &(_, _), b: &(_, _)| first(a).total_cmp(&first(b));
        let served = weighted().filter(|(model, _)| is_served(model)).min_by(by_arrival);
        served.or_else(|| weighted().min_by(by_arrival)).map(|(model, _)| model.as_str())
    }

    /// The name that this path stands for, and the path that is left. A raw path, as it was sent.
    #[must_use]
    pub fn strip<'a>(&'a self, path: &str) -> Option<(&'a str, String)> {
        // Longest first: `/v1/1b` must not take what is meant for `/v1/1b/long`.
        self.paths.iter().rev().find_map(|(prefix, name)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            let version = if rest.starts_with("/v1/") { "" } else { "/v1" };
            rest.starts_with('/').then(|| (name.as_str(), format!("{version}{rest}")))
        })
    }

    /// What cannot be meant.
    pub fn problems(&self) -> impl Iterator<Item = BadName> {
        let aliases = self.aliases.iter().filter_map(|(alias, targets)| {
            if targets.values().all(|weight| *weight == 0) {
                return Some(BadName::Nothing(alias.clone()));
            }
            let target = targets.keys().find(|target| self.aliases.contains_key(*target))?;
            Some(BadName::Chain { alias: alias.clone(), target: target.clone() })
        });
        let is_prefix = |path: &str| {
            path.starts_with('/') && !path.ends_with('/') && path != "/v1" && path.is_ascii()
        };
        let paths = self.paths.keys().filter(move |path| !is_prefix(path));
        aliases.chain(paths.map(|path| BadName::Path(path.clone())))
    }
}

/// When a model comes first for a key, in a race that each wins as often as its weight says (weighted
/// rendezvous hashing: an exponential draw, divided by the weight).
fn arrival(key: &[u8], model: &str, weight: u32) -> f64 {
    /// 2^53: as many steps as a double can tell apart in [0, 1).
    const STEPS: f64 = 9_007_199_254_740_992.0;
    let hash = xxh3_64_with_seed(key, xxh3_64_with_seed(model.as_bytes(), 0)) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are left")]
    let uniform = (hash as f64 + 0.5) / STEPS;
    -uniform.ln() / f64::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(weights: [u32; 2]) -> ModelNames {
        let targets = ["big", "small"].map(str::to_owned).into_iter().zip(weights).collect();
        ModelNames {
            aliases: [("auto".to_owned(), targets)].into(),
            paths: [("/v1/1b", "small"), ("/v1/1b/long", "big"), ("/v1/ab", "auto")]
                .map(|(path, name)| (path.to_owned(), name.to_owned()))
                .into(),
        }
    }

    fn keys() -> impl Iterator<Item = [u8; 4]> {
        (0u32..10_000).map(u32::to_le_bytes)
    }

    #[test]
    fn an_alias_splits_by_its_weights_and_a_key_stays() {
        let names = names([70, 30]);
        let big = |key: &[u8]| names.resolve("auto", key, |_| true) == Some("big");
        let big_ones: Vec<_> = keys().map(|key| big(&key)).collect();
        let share = big_ones.iter().filter(|is_big| **is_big).count();
        assert!((6_850..7_150).contains(&share), "{share} of 10,000");
        assert_eq!(names.resolve("big", b"key", |_| true), None, "no alias");
        // Another replica has read its names in another order, and decides the same.
        let targets = [("small".to_owned(), 30), ("big".to_owned(), 70)];
        let other = ModelNames { aliases: [("auto".to_owned(), targets.into())].into(), ..names };
        let same = |key: &[u8]| other.resolve("auto", key, |_| true) == Some("big");
        assert!(keys().zip(big_ones).all(|(key, is_big)| same(&key) == is_big));
    }

    #[test]
    fn a_change_of_weights_moves_only_who_must_move() {
        let (before, after) = (names([70, 30]), names([80, 30]));
        let of = |names: &ModelNames, key: &[u8]| {
            names.resolve("auto", key, |_| true).map(str::to_owned)
        };
        let moved: Vec<_> = keys().filter(|key| of(&before, key) != of(&after, key)).collect();
        assert!(!moved.is_empty());
        assert!(moved.iter().all(|key| of(&after, key).as_deref() == Some("big")));
    }

    #[test]
    fn what_nobody_serves_is_passed_over_unless_nobody_serves_any() {
        let names = names([70, 30]);
        assert!(keys().all(|key| names.resolve("auto", &key, |m| m == "small") == Some("small")));
        let all = |key: &[u8]| names.resolve("auto", key, |_| true).map(str::to_owned);
        assert!(keys().all(|key| names.resolve("auto", &key, |_| false) == all(&key).as_deref()));
    }

    #[test]
    fn a_prefix_names_a_model_and_goes() {
        let names = names([1, 1]);
        for (path, want) in [
            ("/v1/1b/chat/completions", Some(("small", "/v1/chat/completions"))),
            ("/v1/1b/v1/chat/completions", Some(("small", "/v1/chat/completions"))),
            ("/v1/1b/long/completions", Some(("big", "/v1/completions"))),
            ("/v1/ab/models", Some(("auto", "/v1/models"))),
            ("/v1/1bb/models", None),
            ("/v1/1b", None),
            ("/v1/models", None),
        ] {
            let got = names.strip(path);
            assert_eq!(got.as_ref().map(|(name, path)| (*name, path.as_str())), want, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let mut names = names([0, 0]);
        names.aliases.insert("twice".to_owned(), [("auto".to_owned(), 1)].into());
        names.paths.insert("/v1".to_owned(), "big".to_owned());
        names.paths.insert("v1/x/".to_owned(), "big".to_owned());
        let said: Vec<_> = names.problems().map(|problem| problem.to_string()).collect();
        assert_eq!(
            said,
            [
                "`auto` stands for nothing: its weights are all 0",
                "`twice` stands for `auto`, which is itself an alias",
                "`/v1` is no path prefix: it begins with `/`, ends with none, and is not `/v1`",
                "`v1/x/` is no path prefix: it begins with `/`, ends with none, and is not `/v1`",
            ]
        );
    }
}
