use std::collections::BTreeSet;
use std::fs;

use tempfile::NamedTempFile;

use router::pool::Role;
use router::units::HumanDuration;

use super::*;

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".yaml").expect("there is room for a file");
    fs::write(file.path(), text).expect("it can be written");
    file
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn flag(name: &str, text: &str) -> Setting {
    let key = keys().iter().find(|key| key.flag() == name).expect("it is a flag");
    Setting { key, text: text.to_owned() }
}

fn set(name: &str, text: &str) -> Setting {
    let key = keys().iter().find(|key| key.name() == name).expect("it is a key");
    Setting { key, text: text.to_owned() }
}

fn complaint(yaml: &str, pairs: &[(&str, &str)]) -> String {
    let file = file(yaml);
    let error = Config::load(Some(file.path()), env(pairs), &[]).expect_err("it is refused");
    error.to_string().replace(&file.path().display().to_string(), "FILE")
}

/// The keys that a configuration's problems are about.
fn problems(yaml: &str) -> Vec<String> {
    let key = |line: &str| line.split(": ").next().unwrap_or("").to_owned();
    complaint(yaml, &[]).lines().map(key).collect()
}

const PODS: &str = "endpoints: [http://10.0.0.1:8000]\n";

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let yaml = "endpoints: [http://a:1]\ndeadlines: {connect: 2s, first_byte: 9s, h2_idle: 7s}\n";
    let file = file(yaml);
    let env = env(&[("HEARTH_DEADLINES_CONNECT", "3s"), ("HEARTH_DEADLINES_FIRST_BYTE", "10s")]);
    let flags = [flag("deadlines-connect", "4s")];
    let loaded = Config::load(Some(file.path()), env, &flags).expect("it is fine");
    let deadlines = &loaded.config.deadlines;
    assert_eq!(deadlines.connect.to_string(), "4s");
    assert_eq!(deadlines.first_byte.to_string(), "10s");
    assert_eq!(deadlines.h2_idle.to_string(), "7s");
    assert_eq!(deadlines.keep_alive, Deadlines::default().keep_alive);
    let origin = |key: &str| loaded.origins.get(key).map(ToString::to_string);
    assert_eq!(origin("deadlines.connect").as_deref(), Some("--deadlines-connect"));
    assert_eq!(origin("deadlines.first_byte").as_deref(), Some("HEARTH_DEADLINES_FIRST_BYTE"));
    assert_eq!(origin("deadlines.h2_idle"), Some(format!("{}:2", file.path().display())));
    assert_eq!(origin("deadlines.keep_alive"), None);
}

#[test]
fn a_file_sets_only_what_it_writes_over_another_base() {
    let base = Config { threads: 7, ..Config::default() };
    let file = file("endpoints: [http://a:1]\nlisten: 0.0.0.0:8080\n");
    let loaded = load_over(&base, Some(file.path()), [], &[]).expect("it is fine");
    assert_eq!(loaded.config.threads, 7);
    assert_eq!(loaded.origins.len(), 2, "{:?}", loaded.origins);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    for (yaml, expected) in [
        (
            "listen: 0.0.0.0:1\ndeadlines:\n  conect: 1s\n",
            "FILE:3:3: unknown key `conect`; did you mean `connect`?",
        ),
        ("linger: 1s\n", "FILE:1:1: unknown key `linger`; did you mean `drain.linger`?"),
        ("zzz: 1\n", "FILE:1:1: unknown key `zzz`; `hearth config` lists them all"),
        (
            "endpoints:\n- url: http://a:1\n  rol: prefill\n",
            "FILE:3:3: unknown key `rol`; did you mean `role`?",
        ),
    ] {
        assert_eq!(complaint(yaml, &[]), expected);
    }
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_line() {
    for (yaml, place, hint) in [
        ("\nlimits: {body: huge}\n", "FILE:2:", "`huge` is not a size"),
        ("deadlines:\n  connect: 5\n", "FILE:2:", "write `1s`"),
        ("routing: {policy: wram}\n", "FILE:1:", "is not one of warm, round-robin"),
        ("endpoints: ['https://a:1']\n", "FILE:1:", "plain `http://` only"),
        ("endpoints:\n- http://a:1/v1\n", "FILE:2:", "only host and port"),
        ("threads: many\n", "FILE:1:", "`threads` must be a whole number"),
        (
            "limits: {connections: -1}\n",
            "FILE:1:",
            "`connections` must be a whole number, not below 0",
        ),
        ("endpoints: http://a:1\n", "FILE:1:", "`endpoints` must be a list"),
        ("threads: 1\nthreads: 2\n", "FILE:2:", "the key `threads` is written twice"),
        ("listen: 22280\n", "FILE:1:", "`listen` must be an IP address with a port, like"),
        ("listen: [\n", "FILE:", ""),
    ] {
        let complaint = complaint(yaml, &[]);
        assert!(complaint.starts_with(place) && complaint.contains(hint), "{yaml}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn an_unknown_variable_stops_the_start() {
    assert_eq!(
        complaint(PODS, &[("HEARTH_DEADLINE_CONNECT", "1s")]),
        "environment variable HEARTH_DEADLINE_CONNECT is not a setting; \
         did you mean `HEARTH_DEADLINES_CONNECT`?"
    );
    assert!(complaint(PODS, &[("HEARTH_FOO", "1")]).ends_with("`hearth config` lists them all"));
    let complaint = complaint(PODS, &[("HEARTH_DEADLINES_CONNECT", "soon")]);
    assert!(complaint.starts_with("HEARTH_DEADLINES_CONNECT: "), "{complaint}");
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_settings() {
    let links = env(&[
        ("HEARTH_SERVICE_HOST", "10.0.0.1"),
        ("HEARTH_SERVICE_PORT", "80"),
        ("HEARTH_SERVICE_PORT_HTTP", "80"),
        ("HEARTH_PORT", "tcp://10.0.0.1:80"),
        ("HEARTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("HEARTH_PORT_80_TCP_PROTO", "tcp"),
        ("HEARTH_ADMIN_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("HEARTH_CONFIG", "elsewhere.yaml"),
        ("PATH", "/bin"),
    ]);
    let file = file(PODS);
    let loaded = Config::load(Some(file.path()), links, &[]).expect("none of them is ours");
    assert_eq!(loaded.origins.len(), 1, "{:?}", loaded.origins);
    for (name, text) in [("HEARTH_PORT", "80"), ("HEARTH_PORT_HTTP_TCP", "x")] {
        complaint(PODS, &[(name, text)]);
    }
}

#[test]
fn lists_and_maps_are_read_from_text() {
    let env = env(&[
        ("HEARTH_TOKENIZERS", "{tiny: models/tiny, big/chat: models/big}"),
        ("HEARTH_CORS_ALLOW_ORIGINS", ""),
        ("HEARTH_TLS_LISTEN", "null"),
        ("HEARTH_LIMITS_BODIES_HELD", "25%"),
        ("HEARTH_KUBERNETES_NAMESPACE", "123"),
    ]);
    let flags = [
        flag("endpoints", "http://a:1, http://b:2"),
        flag("endpoints", "[{url: 'http://c:3', role: prefill}]"),
    ];
    let config = Config::load(None, env, &flags).expect("it is fine").config;
    let pod = |address: &str| address.parse::<StaticEndpoint>().expect("an address");
    let want = [pod("a:1"), pod("b:2"), pod("c:3").with_role(Role::Prefill)];
    assert_eq!(config.endpoints, want);
    assert_eq!(config.tokenizers.len(), 2);
    assert_eq!(config.cors.allow_origins, Vec::<String>::new());
    assert_eq!(config.tls.listen, None);
    assert_eq!(config.limits.bodies_held, MemoryBudget::Percent(25));
    assert_eq!(config.kubernetes.namespace.as_deref(), Some("123"));
}

#[test]
fn a_switch_is_told_in_the_usual_words_wherever_it_is_told() {
    for (word, want) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("1", true),
        ("false", false),
        ("no", false),
        ("off", false),
        ("0", false),
    ] {
        let told = env(&[("HEARTH_LOG_ACCESS", word)]);
        let flags = [flag("endpoints", "a:1"), flag("cors-enabled", word)];
        let config = Config::load(None, told, &flags).expect("it is fine").config;
        assert_eq!((config.log.access, config.cors.enabled), (want, want), "{word}");
    }
    for word in ["2", "maybe", ""] {
        let complaint = complaint(PODS, &[("HEARTH_LOG_ACCESS", word)]);
        assert_eq!(complaint, format!("HEARTH_LOG_ACCESS: `{word}` is not `true` or `false`"));
    }
}

#[test]
fn settings_that_do_not_go_together_are_all_named() {
    assert_eq!(problems(""), ["endpoints"]);
    assert_eq!(
        problems(&format!(
            "{PODS}tls: {{cert: c.pem, reload_interval: 0s}}\nretry: {{attempts: 0, budget: 2}}"
        )),
        ["tls.key", "tls.reload_interval", "retry.attempts", "retry.budget"]
    );
    assert_eq!(problems(&format!("{PODS}admin_listen: 0.0.0.0:8080")), ["admin_listen"]);
    assert_eq!(problems(&format!("{PODS}limits: {{bodies_held: 1MiB}}")), ["limits.bodies_held"]);
    assert_eq!(problems("kubernetes: {enabled: true, selector: ''}"), ["kubernetes.selector"]);
    assert_eq!(problems("endpoints: ['http://a:1', 'a:1']"), ["endpoints"]);
    let file = complaint(&format!("{PODS}retry: {{attempts: 0}}"), &[]);
    assert!(file.ends_with("(set by FILE:2)"), "{file}");
    let zero = complaint(&format!("{PODS}deadlines:\n  connect: 0s\n"), &[]);
    assert_eq!(zero, "deadlines.connect: zero is no time at all (set by FILE:3)");
    let variable = complaint(PODS, &[("HEARTH_RETRY_ATTEMPTS", "0")]);
    assert!(variable.ends_with("(set by HEARTH_RETRY_ATTEMPTS)"), "{variable}");
    let zero = "pool: {probe: {interval: 0s}, engine_metrics: {interval: 0s}}";
    let keys = ["pool.probe.interval", "pool.engine_metrics.interval"];
    assert_eq!(problems(&format!("{PODS}{zero}")), keys);
    let negative = "routing: {warm: {decode_ms: -1, balance: 1.5, reuse_ms: 0}}";
    let keys = ["routing.warm.decode_ms", "routing.warm.reuse_ms", "routing.warm.balance"];
    assert_eq!(problems(&format!("{PODS}{negative}")), keys);
    assert_eq!(problems(&format!("{PODS}kv_index: {{exact_bytes: 0}}")), ["kv_index.exact_bytes"]);
    for level in ["a=b=c", "infoo", "info,router", "router=dbug", ""] {
        assert_eq!(problems(&format!("{PODS}log: {{level: '{level}'}}")), ["log.level"], "{level}");
    }
    for level in ["INFO", "info,router::decide=trace", "off"] {
        assert!(
            Config::load(
                None,
                env(&[("HEARTH_ENDPOINTS", "a:1"), ("HEARTH_LOG_LEVEL", level)]),
                &[]
            )
            .is_ok()
        );
    }
}

#[test]
fn what_would_panic_or_abort_later_is_refused_at_the_start() {
    for (key, most, more) in [
        ("retry.floor_per_s", "1000000", "4000000000"),
        ("kv_index.exact_bytes", "15GiB", "1EiB"),
        ("routing.decisions_kept", "100000", "1000000000000"),
        ("threads", "1024", "1000000"),
    ] {
        let load = |text| Config::load(None, [], &[flag("endpoints", "a:1"), set(key, text)]);
        assert!(load(most).is_ok(), "{key}: {most}");
        let error = load(more).expect_err("it is too much").to_string();
        assert!(error.starts_with(&format!("{key}: more than {most}")), "{error}");
    }
    // Whatever is a time is added to now somewhere.
    let defaults = Config::default().to_json();
    let is_time = |key: &&Key| {
        let text = defaults.pointer(&key.pointer()).and_then(|value| value.as_str());
        text.is_some_and(|text| text.parse::<HumanDuration>().is_ok())
    };
    let times: Vec<_> = keys().iter().filter(is_time).collect();
    assert!(times.len() > 30, "{}", times.len());
    for key in times {
        let flags = [flag("endpoints", "a:1"), set(&key.name(), "584years")];
        let error = Config::load(None, [], &flags).expect_err("no clock reaches that").to_string();
        assert!(error.contains("longer than a year"), "{}: {error}", key.name());
    }
}

#[test]
fn pods_that_only_prefill_need_a_connector_and_someone_to_answer() {
    let problems =
        |roles: &str, split: &str| problems(&format!("endpoints: [{roles}]\nsplit: {{{split}}}"));
    let pair = "{url: 'http://a:1', role: prefill}, {url: 'http://b:1', role: decode}";
    assert_eq!(problems(pair, "connector: off"), ["split.connector"]);
    assert_eq!(problems("{url: 'http://a:1', role: prefill}", ""), ["endpoints"]);
    assert_eq!(problems("'http://a:1'", "port: 0, lease: 100ms"), ["split.port", "split.lease"]);
    assert_eq!(problems(pair, "stall: -1"), ["split.stall"]);
    assert_eq!(problems(pair, "transfer_timeout: 0s"), ["split.transfer_timeout"]);
}

#[test]
fn kv_events_are_dialled_or_bound_never_half() {
    let problems = |text: &str| problems(&format!("{PODS}kv_events: {text}"));
    assert_eq!(problems("{mode: bind}"), ["kv_events.bind"]);
    assert_eq!(problems("{mode: connect, bind: 0.0.0.0:5557}"), ["kv_events.bind"]);
    assert_eq!(problems("{replay_port: 5558}"), ["kv_events.port"]);
    assert_eq!(problems("{port: 0, ranks: 0}"), ["kv_events.port", "kv_events.ranks"]);
    assert_eq!(problems("{idle: 0s, queue: 0}"), ["kv_events.idle", "kv_events.queue"]);
    let file = file(&format!("{PODS}kv_events: {{mode: off}}"));
    let loaded = Config::load(Some(file.path()), [], &[]).expect("`off` is a word, not a no");
    assert_eq!(loaded.config.kv_events.mode, router::feed::kv_events::Mode::Off);
}

#[test]
fn the_reference_loads_to_the_defaults_and_explains_every_key() {
    let mut text = Vec::new();
    write_reference(&mut text).expect("a vector takes everything");
    let text = String::from_utf8(text).expect("it is text");
    let read: Config = serde_saphyr::from_str(&text).expect("it is a configuration");
    assert_eq!(read, Config::default());
    for key in keys() {
        assert!(text.contains(&format!("[{} --{}]", key.env(), key.flag())), "{}", key.name());
        assert!(!key.doc.is_empty(), "{} has no doc comment", key.name());
    }
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn every_leaf_of_the_default_is_a_key_with_names_of_its_own() {
    fn leaves(json: &serde_json::Value, path: &str, into: &mut Vec<String>) {
        match json.as_object() {
            Some(map) if !map.is_empty() => {
                map.iter().for_each(|(name, json)| leaves(json, &format!("{path}/{name}"), into));
            }
            _ => into.push(path.to_owned()),
        }
    }
    let mut expected = Vec::new();
    leaves(&Config::default().to_json(), "", &mut expected);
    let pointers: Vec<_> = keys().iter().map(Key::pointer).collect();
    assert_eq!(pointers, expected);
    let variables: BTreeSet<_> = keys().iter().map(Key::env).collect();
    let flags: BTreeSet<_> = keys().iter().map(Key::flag).collect();
    assert_eq!((variables.len(), flags.len()), (keys().len(), keys().len()));
}

#[test]
fn the_hash_follows_the_settings_and_nothing_else() {
    let hash = |yaml: &str, pairs: &[(&str, &str)]| {
        let file = file(yaml);
        Config::load(Some(file.path()), env(pairs), &[]).expect("it is fine").hash
    };
    let from_file = hash(&format!("{PODS}threads: 3\n"), &[]);
    assert_eq!(from_file, hash(PODS, &[("HEARTH_THREADS", "3")]));
    assert_ne!(from_file, hash(PODS, &[]));
    assert_eq!(from_file.len(), 16);
}
