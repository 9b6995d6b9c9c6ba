//! Hearth: an OpenAI endpoint in front of vLLM pods, on Pingora.

pub mod admin;
pub mod app;
pub mod check_config;
pub mod cli;
pub mod config;
mod decision;
#[cfg(feature = "demo")]
pub mod demo;
pub mod disagreements;
pub mod doctor;
pub mod drain;
pub mod epp;
mod head;
pub mod import_epp;
mod ingress;
mod listener;
mod proxy;
pub mod readiness;
mod refuse;
mod request;
pub mod telemetry;
pub mod tls;
