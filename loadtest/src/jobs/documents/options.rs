//! Options of `loadtest documents`.

use std::path::PathBuf;
use std::str::FromStr;

use super::super::{JobError, TargetOptions};
use crate::workload::DocumentsShape;

/// Options of `loadtest documents`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send, unless --target names gateways.
    #[command(flatten)]
    pub target: TargetOptions,

    /// A gateway and its policy's name; repeat to compare. The gates are the first one's.
    #[arg(long = "target", value_name = "NAME=URL")]
    pub targets: Vec<NamedTarget>,

    /// Documents.
    #[arg(long, value_name = "N", default_value_t = Self::default().documents)]
    pub documents: u32,

    /// Tokens of a document, about.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().document_tokens)]
    pub document_tokens: u32,

    /// Tokens of a system prompt that all requests share, about.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().shared_tokens)]
    pub shared_tokens: u32,

    /// Draw the document of each session by Zipf's law with this exponent, instead of evenly.
    #[arg(long, value_name = "EXPONENT")]
    pub zipf: Option<f64>,

    /// Sessions about each document, of two turns each.
    #[arg(long, value_name = "N", default_value_t = Self::default().sessions)]
    pub sessions: u32,

    /// Requests in flight.
    #[arg(long, value_name = "N", default_value_t = Self::default().concurrency)]
    pub concurrency: u32,

    /// Tokens of an answer.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().output_tokens)]
    pub output_tokens: u32,

    /// Seed of the order. Texts are new in every run, so that none is cached from the last.
    #[arg(long, value_name = "N", default_value_t = Self::default().seed)]
    pub seed: u64,

    /// Pods behind the gateway, so that idle ones count. Default: those that answered.
    #[arg(long, value_name = "N")]
    pub pods: Option<u32>,

    /// Write one JSON line for every request to this file.
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,

    /// Exit 1 below this hit rate, in percent of prompt tokens.
    #[arg(long, value_name = "PERCENT")]
    pub min_hit_rate: Option<f64>,

    /// Exit 1 if the busiest pod's load over the mean is above this.
    #[arg(long, value_name = "RATIO")]
    pub max_load_ratio: Option<f64>,
}

/// A gateway to compare.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedTarget {
    /// Its policy.
    pub name: String,
    /// Its base URL.
    pub url: String,
}

// === impl NamedTarget ===

impl FromStr for NamedTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, url)) if !name.is_empty() && url.contains("://") => {
                Ok(Self { name: name.to_owned(), url: url.to_owned() })
            }
            _ => Err(format!("`{text}` is not NAME=URL, such as warm=http://127.0.0.1:8080")),
        }
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            target: TargetOptions::default(),
            targets: Vec::new(),
            documents: 30,
            document_tokens: 2048,
            shared_tokens: 0,
            zipf: None,
            sessions: 10,
            concurrency: 4,
            output_tokens: 16,
            seed: 1,
            pods: None,
            records: None,
            min_hit_rate: None,
            max_load_ratio: None,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), JobError> {
        let wrong = |text: &str| Err(JobError::Option(text.to_owned()));
        if self.documents == 0 || self.sessions == 0 || self.concurrency == 0 {
            return wrong("--documents, --sessions and --concurrency must be at least 1");
        }
        if self.documents.checked_mul(self.sessions).is_none_or(|sessions| sessions > 100_000) {
            return wrong("--documents times --sessions must be at most 100000");
        }
        if self.zipf.is_some_and(|exponent| !(0.0..=10.0).contains(&exponent)) {
            return wrong("--zipf must be between 0 and 10");
        }
        Ok(())
    }

    pub(super) fn named_targets(&self) -> Vec<NamedTarget> {
        if self.targets.is_empty() {
            return vec![NamedTarget { name: "gateway".into(), url: self.target.url() }];
        }
        self.targets.clone()
    }

    pub(super) fn shape(&self) -> DocumentsShape {
        DocumentsShape {
            documents: self.documents,
            sessions_per_document: self.sessions,
            zipf: self.zipf,
        }
    }
}
