//! The simulator on the wire, against what a real vLLM 0.32 sent (`tests/fixtures/vllm`).

mod breaks;
mod continuations;
mod disconnects;
mod faults;
mod kv_events;
mod metrics;
mod shapes;
mod support;
mod transfer;
mod values;
