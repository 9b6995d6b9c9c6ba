//! Settings that can be read and still make no sense.

use std::collections::BTreeSet;
use std::time::Duration;

use router::connector::ConnectorName;
use router::discovery::KubernetesSettings;
use router::discovery::StaticEndpoint;
use router::feed::kv_events::Mode;
use router::pool::Role;
use tracing_subscriber::EnvFilter;

use super::error::nearest;
use super::{Config, ConfigError, Problem};
use crate::epp::EppTls;

/// What the program's log may be cut at.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The exact index has 2^32 words of 8 bytes, and needs up to twice what it holds.
const MOST_EXACT_BYTES: u64 = 15 << 30;
/// Beyond it threads only cost memory, and their runtime ends at some number.
const MOST_THREADS: usize = 1024;
/// Some 100 MB.
const MOST_DECISIONS: usize = 100_000;
/// The budget's own arithmetic ends at 2^31.
const MOST_RETRIES_PER_S: u32 = 1_000_000;

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
                problems.push(Problem { key, message: message.to_owned(), set_by: None });
            }
        };
        let pods = !self.endpoints.is_empty() || self.kubernetes.enabled;
        check(pods, "endpoints", "no pods: name some here, or set kubernetes.enabled");
        let twice = self.endpoint_twice();
        let message = format!("`{}` is named twice", twice.as_deref().unwrap_or_default());
        check(twice.is_none(), "endpoints", &message);
        let selector = !self.kubernetes.enabled || !self.kubernetes.selector.trim().is_empty();
        check(selector, "kubernetes.selector", "an empty selector would take every pod");
        let pools = &self.kubernetes.inference_pools;
        let once = pools.iter().collect::<BTreeSet<_>>().len() == pools.len();
        check(once, "kubernetes.inference_pools", "a pool is named twice");
        let said_twice = !pools.is_empty() && {
            let (it, default) = (&self.kubernetes, KubernetesSettings::default());
            it.selector != default.selector
                || it.port_name != default.port_name
                || it.port != default.port
        };
        check(
            !said_twice,
            "kubernetes.inference_pools",
            "a pool says which pods and ports: leave out kubernetes.selector, port_name and port",
        );
        let ports_differ = self.listen != self.admin_listen || self.listen.port() == 0;
        check(ports_differ, "admin_listen", "the same address as `listen`");
        self.check_tls(&mut check);
        self.check_durations(&mut check);
        self.check_amounts(&mut check);
        self.check_kv_events(&mut check);
        self.check_pool(&mut check);
        self.check_split(&mut check);
        self.check_routing(&mut check);
        for name in self.model_names.problems() {
            check(false, "model_names", &name.to_string());
        }
        let share = (0.0..=1.0).contains(&self.traces.share);
        check(share, "traces.share", "not a share between 0 and 1");
        let level = check_level(&self.log.level).err();
        check(level.is_none(), "log.level", &level.unwrap_or_default());
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// An address that is among the endpoints more than once, in whatever role.
    fn endpoint_twice(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        self.endpoints.iter().map(ToString::to_string).find(|url| !seen.insert(url.clone()))
    }

    fn check_pool(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let health = &self.pool.health;
        for (count, key) in [
            (health.failed_requests, "pool.health.failed_requests"),
            (health.failed_probes, "pool.health.failed_probes"),
        ] {
            check(count > 0, key, "zero: every pod would be out before it has failed");
        }
        let share = (0.0..=1.0).contains(&health.max_ejected_share);
        check(share, "pool.health.max_ejected_share", "not a share between 0 and 1");
        let ordered = health.ejected_min.get() <= health.ejected_max.get();
        check(ordered, "pool.health.ejected_max", "shorter than pool.health.ejected_min");
    }

    fn check_split(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let it = &self.split;
        let roles = || self.endpoints.iter().map(StaticEndpoint::role);
        let prefills = roles().any(|role| role == Role::Prefill);
        let connects = it.connector != ConnectorName::Off;
        check(
            connects || !prefills,
            "split.connector",
            "`off`, though an endpoint has the role `prefill`: it would get no request",
        );
        let answers = self.kubernetes.enabled || roles().any(|role| role != Role::Prefill);
        check(answers || !prefills, "endpoints", "all have the role `prefill`: none can answer");
        check(it.stall >= 0.0 && it.stall.is_finite(), "split.stall", "not a number from 0 on");
        check(it.port != Some(0), "split.port", "zero is no port");
        // vLLM's own heartbeat is a sixth of the lease, in whole seconds.
        let lease = it.lease.get() >= Duration::from_secs(1);
        check(lease, "split.lease", "shorter than 1 s: no transfer could begin in time");
    }

    fn check_routing(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let it = &self.routing.warm;
        for (weight, key) in [
            (it.decode_ms, "routing.warm.decode_ms"),
            (it.session_tokens, "routing.warm.session_tokens"),
        ] {
            check(weight >= 0.0 && weight.is_finite(), key, "not a number from 0 on");
        }
        let reuse = it.reuse_ms > 0.0 && it.reuse_ms.is_finite();
        check(reuse, "routing.warm.reuse_ms", "not a number above 0");
        let share = (0.0..=1.0).contains(&it.balance);
        check(share, "routing.warm.balance", "not a share between 0 and 1");
    }

    fn check_tls(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let tls = &self.tls;
        let (cert, key) = (tls.cert.is_some(), tls.key.is_some());
        check(key || !cert, "tls.key", "missing, though tls.cert is set");
        check(cert || !key, "tls.cert", "missing, though tls.key is set");
        let (listens, files) = (tls.listen.is_some(), self.epp.tls == EppTls::Files);
        check(!listens || cert || key, "tls.cert", "missing, though tls.listen is set");
        check(
            listens || files || !(cert && key),
            "tls.listen",
            "missing, though tls.cert and tls.key are set",
        );
        check(!files || cert || key, "tls.cert", "missing, though epp.tls is `files`");
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
            (it.websocket_idle, "deadlines.websocket_idle"),
            (it.client_write, "deadlines.client_write"),
            (it.keep_alive, "deadlines.keep_alive"),
            (it.h2_idle, "deadlines.h2_idle"),
            (it.upstream_idle, "deadlines.upstream_idle"),
            (it.upstream_write, "deadlines.upstream_write"),
            (self.split.prefill_timeout, "split.prefill_timeout"),
            (self.split.transfer_timeout, "split.transfer_timeout"),
            (self.tls.reload_interval, "tls.reload_interval"),
            (self.kv_index.approximate_max_age, "kv_index.approximate_max_age"),
            (self.kv_events.refresh, "kv_events.refresh"),
            (self.kv_events.idle, "kv_events.idle"),
            (self.kv_events.timeout, "kv_events.timeout"),
            (self.pool.probe.interval, "pool.probe.interval"),
            (self.pool.probe.retry_interval, "pool.probe.retry_interval"),
            (self.pool.probe.timeout, "pool.probe.timeout"),
            (self.pool.probe.connect_timeout, "pool.probe.connect_timeout"),
            (self.pool.engine_metrics.interval, "pool.engine_metrics.interval"),
            (self.pool.engine_metrics.idle_interval, "pool.engine_metrics.idle_interval"),
            (self.pool.engine_metrics.timeout, "pool.engine_metrics.timeout"),
            (self.pool.health.still_after, "pool.health.still_after"),
            (self.queue.wait, "queue.wait"),
            (self.survive.silence.doubt_after, "survive.silence.doubt_after"),
            (self.survive.silence.stall_floor, "survive.silence.stall_floor"),
            (self.kubernetes.watch_timeout, "kubernetes.watch_timeout"),
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
        let some = !self.kv_index.approximate_bytes.is_empty();
        check(some, "kv_index.approximate_bytes", "zero: nothing could be remembered");
        let exact = self.kv_index.exact_bytes.get();
        check(exact > 0, "kv_index.exact_bytes", "zero: nothing could be remembered");
        let per_pod = self.kv_index.exact_bytes_per_pod.get();
        check(per_pod > 0, "kv_index.exact_bytes_per_pod", "zero: nothing could be remembered");
        let reach = exact <= MOST_EXACT_BYTES;
        check(reach, "kv_index.exact_bytes", "more than 15GiB: the index could not address it");
        let threads = self.threads <= MOST_THREADS;
        check(threads, "threads", "more than 1024: none of them would have a core");
        let kept = self.routing.decisions_kept <= MOST_DECISIONS;
        check(kept, "routing.decisions_kept", "more than 100000: all are allocated at the start");
        let floor = self.retry.floor_per_s <= MOST_RETRIES_PER_S;
        check(floor, "retry.floor_per_s", "more than 1000000: more than a gateway relays at all");
        check(self.retry.attempts > 0, "retry.attempts", "zero: no pod would be tried");
        let share = (0.0..=1.0).contains(&self.retry.budget);
        check(share, "retry.budget", "not a share between 0 and 1");
        let rescue = &self.survive.rescue;
        let share = (0.0..=1.0).contains(&rescue.budget);
        check(share, "survive.rescue.budget", "not a share between 0 and 1");
        let times = rescue.times >= 1.0;
        check(times, "survive.rescue.times", "below 1: every first token would be late");
        let holds = !self.survive.hold.is_empty();
        check(holds, "survive.hold", "zero: no answer would be held");
        let slack = (0.0..=10.0).contains(&self.queue.slack);
        check(slack, "queue.slack", "not a share between 0 and 10");
        let paces = self.survive.silence.stall_paces;
        check(paces >= 1.0, "survive.silence.stall_paces", "below 1: every token would be late");
        let access = !self.log.access || self.log.access_queue > 0;
        check(access, "log.access_queue", "zero: every line would be dropped");
        let origins = !self.cors.enabled || !self.cors.allow_origins.is_empty();
        check(origins, "cors.allow_origins", "empty, though cors.enabled is set");
    }
}

/// Whether this is a level, or directives that end in one. The library takes any word without `=` for
/// a part of the program, and `infoo` would silence all others.
pub(crate) fn check_level(text: &str) -> Result<(), String> {
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        let is_level = LEVELS.contains(&level.to_ascii_lowercase().as_str());
        if !is_level && !directive.ends_with(']') {
            let near = nearest(level, LEVELS.iter().map(|&level| level.to_owned()));
            let hint = near.map_or_else(
                || format!("they are {}", LEVELS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(format!("`{level}` is not a level; {hint}"));
        }
    }
    let directives = EnvFilter::builder().parse(text);
    directives.map(drop).map_err(|error| format!("not a list of directives: {error}"))
}
