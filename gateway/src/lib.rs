//! Hearth: an OpenAI endpoint in front of vLLM pods, on Pingora.

pub mod cli;
pub mod config;
pub mod drain;
pub mod telemetry;
pub mod tls;
