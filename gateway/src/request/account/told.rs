//! What is counted and logged of a request when its account is closed.

use std::time::Duration;

use http::StatusCode;
use router::Decision;

use super::{Account, Attempt, Sent};
use crate::refuse::CLIENT_GONE;
use crate::telemetry::access_log::Record;
use crate::telemetry::metrics::{Metrics, TokenCounts};
use crate::telemetry::{Decided, Ended};

impl Account {
    /// Counts the request as ended, with so many bytes of an answer.
    pub(super) fn count(&self, metrics: &Metrics, status: StatusCode, answer_bytes: usize) {
        let model = self.model.as_deref();
        if let Some((epp, body_bytes)) = metrics.epp.as_ref().zip(self.body_bytes) {
            epp.ended(&Ended {
                model,
                code: status,
                seconds: self.started.elapsed().as_secs_f64(),
                bytes: (body_bytes, answer_bytes),
                decision: self.decision.as_ref().map(|decision| self.decided(decision)),
            });
        }
        metrics.request_ends(self.route, status, model, self.started.elapsed().as_secs_f64());
        match self.error {
            Some(CLIENT_GONE) => metrics.client_gone.inc(),
            Some(reason) => metrics.error(reason),
            None => {}
        }
        let Some(decision) = &self.decision else { return };
        metrics.decision(self.deciding.as_secs_f64());
        if let Some(split) = decision.split {
            metrics.splits.ended(split.verdict, self.transfer_ms());
        }
        if let Some(ttft_ms) = self.seen.ttft_ms {
            metrics.first_token(model, ttft_ms / 1e3);
        }
        if let Some(tpot_ms) = self.tpot_ms {
            metrics.output_token_time(model, tpot_ms / 1e3);
        }
        metrics.tokens(model, self.tokens(decision));
    }

    fn tokens(&self, decision: &Decision) -> TokenCounts {
        let (prompt, matched) = self.prompt_tokens(decision);
        TokenCounts {
            prompt,
            matched,
            cached: u64::from(self.seen.cached_tokens.unwrap_or(0)),
            output: u64::from(self.seen.output_tokens),
        }
    }

    fn decided(&self, decision: &Decision) -> Decided {
        Decided {
            policy: decision.policy.name(),
            is_split: self.is_split(),
            seconds: self.deciding.as_secs_f64(),
            tokens: self.tokens(decision),
        }
    }

    /// Tokens of the prompt, and those that the pod was believed to hold. The decision counts in
    /// estimates where there is no tokenizer: once the pod has counted, both are told in its tokens.
    fn prompt_tokens(&self, decision: &Decision) -> (u64, u64) {
        let (matched, estimate) =
            (u64::from(decision.matched_tokens), u64::from(decision.prompt_tokens));
        match self.seen.prompt_tokens.map(u64::from) {
            Some(tokens) if tokens != estimate => {
                (tokens, (matched * tokens / estimate.max(1)).min(tokens))
            }
            _ => (estimate, matched),
        }
    }

    /// From sending the request to the pod that answers, to its head. What went before, the client's
    /// body and attempts that failed, is not that pod's time.
    pub(super) fn service_time(&self) -> Option<Duration> {
        let Attempt { sent, head, split, .. } = self.attempt;
        let sent = split.sent.filter(|_| self.is_split()).or(sent)?;
        Some(head?.saturating_duration_since(sent))
    }

    /// From sending the decode leg to its first token.
    fn transfer_ms(&self) -> Option<f64> {
        let sent_ms = self.attempt.split.sent?.duration_since(self.started).as_secs_f64() * 1e3;
        self.seen.ttft_ms.filter(|_| self.is_split()).map(|ttft_ms| (ttft_ms - sent_ms).max(0.0))
    }

    /// The request's line in the access log.
    #[must_use]
    pub(super) fn record(&self, sent: &Sent, status: StatusCode) -> Record {
        let total = self.started.elapsed();
        let answered = self.decision.is_some();
        let usage = |n: u32| answered.then_some(u64::from(n));
        let prompt = self.decision.as_ref().map(|decision| self.prompt_tokens(decision));
        Record {
            start_time: self.start_time,
            method: sent.method.as_str().into(),
            path: sent.uri.path().into(),
            protocol: protocol(sent.version),
            response_code: status.as_u16(),
            duration: millis(total),
            upstream_service_time: self.service_time().map(millis),
            upstream_host: self.attempt.pod,
            route_name: self.route,
            authority: sent
                .host
                .as_ref()
                .map(Into::into)
                .or_else(|| sent.uri.authority().map(|authority| authority.as_str().into())),
            x_session_id: self.session.as_ref().map(|key| key.to_string().as_str().into()),
            x_test_id: sent.test_id.as_ref().map(Into::into),
            user_agent: sent.user_agent.as_ref().map(Into::into),
            request_id: self.request_id.as_str().into(),
            downstream_remote_address: sent.client,
            model: self.model.as_deref().map(Into::into),
            policy: self.decision.map(|decision| decision.policy.name()),
            prompt_tokens: prompt.map(|(tokens, _)| tokens),
            matched_tokens: prompt.map(|(_, matched)| matched),
            cached_tokens: self.seen.cached_tokens.map(u64::from),
            output_tokens: usage(self.seen.output_tokens),
            decision_us: answered.then(|| u64::try_from(self.deciding.as_micros()).unwrap_or(0)),
            ttft_ms: self.seen.ttft_ms,
            queue_ms: self.queue_ms,
            tpot_ms: self.tpot_ms,
            prefill_host: self.attempt.split.prefill,
            prefill_ms: self.attempt.split.prefill_ms,
            transfer_ms: self.transfer_ms(),
            total_ms: total.as_secs_f64() * 1e3,
            attempts: self.attempts,
            attempts_failed: self.failed.clone(),
            moves: self.moves,
            error: self.error,
            decision: Some(self.decision_header().to_owned()),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
