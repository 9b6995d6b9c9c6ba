//! The job's four kinds of request, with the bodies and headers of the pipeline that it replaces.

use super::Options;
use crate::client::{Call, CallOptions, Message};
use crate::workload::HEALTH;

/// The names a run goes by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Names {
    /// `x-test-id` of all its requests.
    pub test_id: String,
    /// Session of the warm-up.
    pub warmup_session: String,
    /// Session of the measured requests.
    pub session: String,
}

// === impl Names ===

impl Names {
    /// Names after the second the job began in and the run's number, if it is one of several.
    pub(super) fn new(epoch_s: u64, number: Option<u32>) -> Self {
        let suffix = number.map(|number| format!("-{number}")).unwrap_or_default();
        Self {
            test_id: format!("multi-{epoch_s}{suffix}"),
            warmup_session: format!("warmup-{epoch_s}{suffix}"),
            session: format!("enhanced-cache-test-{epoch_s}{suffix}"),
        }
    }
}

/// A request of the warm-up, in its own session.
pub(super) fn warmup(options: &Options, names: &Names) -> Call {
    let call = prompt(options)
        .with_header("user-agent", "CacheWarmup/1.0")
        .with_header("x-test-id", &names.test_id);
    in_session(call, options, &names.warmup_session)
}

/// A measured request.
pub(super) fn measured(options: &Options, names: &Names) -> Call {
    let call = prompt(options)
        .with_header("authorization", &format!("Bearer enhanced-test-token-{}", names.session))
        .with_header("x-test-id", &names.test_id)
        .with_header("user-agent", "EnhancedCacheTest/1.0");
    if options.no_session_headers {
        return call;
    }
    in_session(call, options, &names.session)
        .with_header("cookie", &format!("session_id={}", names.session))
}

/// The health check: no session, not streamed.
pub(super) fn health(options: &Options) -> Call {
    let sampling = CallOptions { max_tokens: 4, temperature: Some(0.0), ..CallOptions::default() };
    Call::chat(&options.target.model_id, &[Message::user(HEALTH)], &sampling)
}

/// The routing test after the measurement: no session, not streamed.
pub(super) fn routing_test(options: &Options, names: &Names) -> Call {
    const QUESTION: &str = "What makes Paris a unique city?";
    let sampling = CallOptions { max_tokens: 8, temperature: Some(0.0), ..CallOptions::default() };
    let model = &options.target.model_id;
    let call = if options.raw {
        Call::completion(model, QUESTION, &sampling)
    } else {
        Call::chat(model, &[Message::user(QUESTION)], &sampling)
    };
    call.with_header("x-test-id", &names.test_id)
}

fn prompt(options: &Options) -> Call {
    let sampling = CallOptions {
        max_tokens: 16,
        temperature: Some(0.0),
        top_p: Some(1.0),
        seed: Some(12345),
        ignore_eos: false,
        stream: !options.no_stream,
    };
    let model = &options.target.model_id;
    if options.raw {
        Call::completion(model, options.prompt_text(), &sampling)
    } else {
        Call::chat(model, &[Message::user(options.prompt_text())], &sampling)
    }
}

fn in_session(call: Call, options: &Options, session: &str) -> Call {
    if options.no_session_headers {
        return call;
    }
    call.with_header("session-id", session).with_header("x-session-id", session)
}
