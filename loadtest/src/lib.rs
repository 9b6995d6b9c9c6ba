//! A vLLM simulator, workloads, a client and reports.
//!
//! `loadtest` drives a gateway only as a URL; `hearth demo` uses its simulator in-process.

pub mod cli;
pub mod client;
pub mod jobs;
pub mod policies;
pub mod report;
pub mod saturate;
pub mod simulator;
pub mod upstream;
pub mod workload;
