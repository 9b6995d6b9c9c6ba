//! A request's life as spans, made of what is known at its end.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use opentelemetry::KeyValue;

use super::Account;
use crate::telemetry::traces::{Part, PartKind};

impl Account {
    /// What happened when: the request, reading it, deciding, and each leg.
    pub(super) fn spans(&self, status: StatusCode) -> Vec<Part> {
        let now = Instant::now();
        let part = |name, (from, to): (Instant, Instant), kind, attributes| {
            let time = (self.system_time(from), self.system_time(to));
            Part { name, time, attributes, kind }
        };
        let mut parts = vec![part(
            self.route,
            (self.started, now),
            PartKind::Request(self.error),
            self.facts(status),
        )];
        if let Some(read) = self.reading {
            parts.push(part("read", read, PartKind::Inner, Vec::new()));
        }
        let Some(sent) = self.attempt.sent else { return parts };
        let began = sent.checked_sub(self.deciding).unwrap_or(self.started);
        parts.push(part("decide", (began, sent), PartKind::Inner, Vec::new()));
        let at = |pod: Option<std::net::SocketAddr>| {
            pod.map(|pod| KeyValue::new("server.address", pod.to_string())).into_iter().collect()
        };
        let decode_sent = self.attempt.split.sent.unwrap_or(sent);
        if let Some(ms) = self.attempt.split.prefill_ms {
            let took = Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
            let from = decode_sent.checked_sub(took).unwrap_or(sent);
            parts.push(part(
                "prefill",
                (from, decode_sent),
                PartKind::Prefill,
                at(self.attempt.split.prefill),
            ));
        }
        let mut facts: Vec<KeyValue> = at(self.attempt.pod);
        if let Some(ms) = self.seen.ttft_ms {
            facts.push(KeyValue::new("hearth.ttft_ms", ms));
        }
        parts.push(part("answer", (decode_sent, now), PartKind::Answer, facts));
        parts
    }

    /// Nothing of what the user sent.
    fn facts(&self, status: StatusCode) -> Vec<KeyValue> {
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut facts = vec![
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new("hearth.request_id", self.request_id.clone()),
            KeyValue::new("hearth.decision", self.decision_header().to_owned()),
            KeyValue::new("hearth.attempts", i64::from(self.attempts)),
            KeyValue::new("hearth.moves", i64::from(self.moves)),
        ];
        if let Some(model) = &self.model {
            facts.push(KeyValue::new("gen_ai.request.model", model.to_string()));
        }
        if let Some(error) = self.error {
            facts.push(KeyValue::new("error.type", error));
        }
        if self.decision.is_some() {
            let cached = u64::from(self.seen.cached_tokens.unwrap_or(0));
            let output = u64::from(self.seen.output_tokens);
            facts.push(KeyValue::new("gen_ai.usage.output_tokens", int(output)));
            facts.push(KeyValue::new("gen_ai.usage.cache_read.input_tokens", int(cached)));
        }
        facts
    }

    fn system_time(&self, at: Instant) -> SystemTime {
        SystemTime::from(self.start_time) + at.saturating_duration_since(self.started)
    }
}
