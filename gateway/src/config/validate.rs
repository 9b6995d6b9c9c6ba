//! Settings that can be read and still make no sense.

use router::feed::kv_events::Mode;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, Problem};

// === impl Config ===

impl Config {
    /// Looks for settings that do not go together.
    ///
    /// # Errors
    /// All problems at once, each with its key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, key: &'static str, message: &str| {
            if !fine {
                problems.push(Problem { key, message: message.to_owned() });
            }
        };
        let pods = !self.endpoints.is_empty() || self.kubernetes.enabled;
        check(pods, "endpoints", "no pods: name some here, or set kubernetes.enabled");
        let selector = !self.kubernetes.enabled || !self.kubernetes.selector.trim().is_empty();
        check(selector, "kubernetes.selector", "an empty selector would take every pod");
        let ports_differ = self.listen != self.admin_listen || self.listen.port() == 0;
        check(ports_differ, "admin_listen", "the same address as `listen`");
        self.check_tls(&mut check);
        self.check_durations(&mut check);
        self.check_amounts(&mut check);
        let filter = EnvFilter::builder().parse(&self.log.level);
        check(filter.is_ok(), "log.level", "not a level, nor a list of directives");
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    fn check_tls(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let tls = &self.tls;
        let (cert, key) = (tls.cert.is_some(), tls.key.is_some());
        check(key || !cert, "tls.key", "missing, though tls.cert is set");
        check(cert || !key, "tls.cert", "missing, though tls.key is set");
        let listens = tls.listen.is_some();
        check(!listens || cert || key, "tls.cert", "missing, though tls.listen is set");
        check(
            listens || !(cert && key),
            "tls.listen",
            "missing, though tls.cert and tls.key are set",
        );
        let clash = tls
            .listen
            .is_some_and(|it| it.port() != 0 && (it == self.listen || it == self.admin_listen));
        check(!clash, "tls.listen", "the same address as `listen` or `admin_listen`");
    }

    fn check_durations(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let it = &self.deadlines;
        for (duration, key) in [
            (it.connect, "deadlines.connect"),
            (it.request_head, "deadlines.request_head"),
            (it.request_body, "deadlines.request_body"),
            (it.first_byte, "deadlines.first_byte"),
            (it.between_bytes, "deadlines.between_bytes"),
            (it.client_write, "deadlines.client_write"),
            (it.keep_alive, "deadlines.keep_alive"),
            (it.h2_idle, "deadlines.h2_idle"),
            (it.upstream_idle, "deadlines.upstream_idle"),
            (self.tls.reload_interval, "tls.reload_interval"),
            (self.kv_index.max_age, "kv_index.max_age"),
            (self.kv_events.refresh, "kv_events.refresh"),
            (self.kv_events.idle, "kv_events.idle"),
            (self.kv_events.timeout, "kv_events.timeout"),
        ] {
            check(!duration.is_zero(), key, "zero is no time at all");
        }
    }

    fn check_kv_events(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let it = &self.kv_events;
        let binds = it.mode != Mode::Bind || it.bind.is_some();
        check(binds, "kv_events.bind", "missing, though kv_events.mode is `bind`");
        let dials = it.mode != Mode::Connect || it.bind.is_none();
        check(dials, "kv_events.bind", "set, though kv_events.mode is `connect`");
        let ports = it.replay_port.is_none() || it.port.is_some();
        check(ports, "kv_events.port", "missing, though kv_events.replay_port is set");
        check(it.port != Some(0), "kv_events.port", "zero is no port");
        check(it.replay_port != Some(0), "kv_events.replay_port", "zero is no port");
        check(it.ranks > 0, "kv_events.ranks", "zero: a pod has at least one");
        check(it.queue > 0, "kv_events.queue", "zero: no batch could wait");
    }

    fn check_amounts(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        check(!self.limits.body.is_empty(), "limits.body", "zero: no request could meet it");
        check(!self.limits.head.is_empty(), "limits.head", "zero: no request could meet it");
        let held = self.limits.bodies_held.bytes_of(u64::MAX);
        let fits = held >= self.limits.body.get();
        check(fits, "limits.bodies_held", "smaller than limits.body: the longest body never fits");
        let some = !self.kv_index.bytes.is_empty();
        check(some, "kv_index.bytes", "zero: nothing could be remembered");
        self.check_kv_events(check);
        check(self.retry.attempts > 0, "retry.attempts", "zero: no pod would be tried");
        let share = (0.0..=1.0).contains(&self.retry.budget);
        check(share, "retry.budget", "not a share between 0 and 1");
        let access = !self.log.access || self.log.access_queue > 0;
        check(access, "log.access_queue", "zero: every line would be dropped");
        let origins = !self.cors.enabled || !self.cors.allow_origins.is_empty();
        check(origins, "cors.allow_origins", "empty, though cors.enabled is set");
    }
}
