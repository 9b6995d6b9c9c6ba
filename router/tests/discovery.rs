//! Kubernetes discovery against an API server that speaks list and watch, and fails in every way.

#[path = "support/fake_api.rs"]
mod fake_api;
#[path = "support/fake_engine.rs"]
mod fake_engine;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fake_api::{Cut, FakeApi, Mood};
use fake_engine::FakeEngine;
use kv_index::Slot;
use parking_lot::Mutex;
use router::discovery::{DiscoverySettings, KubernetesSettings};
use router::pool::{self, Hooks, Pool, PoolGuard, PoolSettings, Role, Snapshot};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::Instant;

/// The pool of a fake API server.
struct Watched {
    api: FakeApi,
    pool: Pool,
    removed: Arc<Mutex<Vec<Slot>>>,
    _guard: PoolGuard,
    _kubeconfig: NamedTempFile,
}

impl Watched {
    fn new(api: FakeApi) -> Self {
        let kubeconfig = NamedTempFile::new().expect("there is a temporary folder");
        std::fs::write(kubeconfig.path(), api.kubeconfig()).expect("the file can be written");
        let kubernetes = KubernetesSettings {
            enabled: true,
            kubeconfig: Some(kubeconfig.path().to_owned()),
            ..KubernetesSettings::default()
        };
        let discovery = DiscoverySettings { kubernetes, ..DiscoverySettings::default() };
        let removed = Arc::default();
        let log: Arc<Mutex<Vec<Slot>>> = Arc::clone(&removed);
        let hooks =
            Hooks { removed: Box::new(move |slot| log.lock().push(slot)), ..Hooks::default() };
        let (pool, guard) =
            pool::start(PoolSettings::default(), discovery, hooks).expect("the HTTP client builds");
        Self { api, pool, removed, _guard: guard, _kubeconfig: kubeconfig }
    }

    /// With these pods, of which nobody answers probes.
    async fn with_silent_pods(names: &[&str]) -> Self {
        let api = FakeApi::start().await;
        for name in names {
            api.apply(silent(name));
        }
        let watched = Self::new(api);
        watched.wait_for_pods(names).await;
        watched
    }

    async fn wait(&self, wanted: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        self.pool.wait_for(wanted).await.expect("the pool is running")
    }

    async fn wait_for_pods(&self, names: &[&str]) -> Arc<Snapshot> {
        self.wait(|snapshot| self::names(snapshot) == names).await
    }
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let mut names: Vec<_> = snapshot.endpoints.iter().map(|e| &*e.pod.name).collect();
    names.sort_unstable();
    names
}

fn pod(name: &str, port: u16) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"llm-d.ai/role": "decode"}},
        "spec": {"containers": [{"name": "vllm", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A pod on a port that nobody may listen on.
fn silent(name: &str) -> Value {
    pod(name, 1)
}

#[tokio::test(start_paused = true)]
async fn all_pages_of_the_list_are_one_set() {
    let names = ["a", "b", "c", "d", "e"];
    let watched = Watched::with_silent_pods(&names).await;
    let snapshot = watched.pool.snapshot();
    assert!(snapshot.synced_at.is_some());
    assert!(snapshot.endpoints.iter().all(|e| e.pod.role == Role::Decode));
    assert_eq!(watched.api.served().0, 3, "two pods a page");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_followed_from_its_first_ip_to_its_end() {
    let engine = FakeEngine::start("tiny").await;
    let watched = Watched::with_silent_pods(&[]).await;
    let mut pod = pod("a", engine.addr.port());
    let ip = pod["status"]["podIP"].take();
    watched.api.apply(pod.clone());
    watched.api.apply(silent("b"));
    watched.wait_for_pods(&["b"]).await;

    pod["status"]["podIP"] = ip;
    watched.api.apply(pod.clone());
    let snapshot = watched.wait(|s| s.ready().count() == 1).await;
    let slot = snapshot.ready().next().expect("it is ready").slot;

    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    watched.api.apply(pod);
    let snapshot = watched.wait(|s| s.ready().count() == 0).await;
    assert_eq!(names(&snapshot), ["a", "b"], "its streams may still end");
    assert!(watched.removed.lock().is_empty());

    watched.api.delete("a");
    watched.wait_for_pods(&["b"]).await;
    watched.api.apply(silent("c"));
    watched.wait_for_pods(&["b", "c"]).await;
    assert_eq!(*watched.removed.lock(), [slot]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_another_pod() {
    let watched = Watched::with_silent_pods(&["a", "b"]).await;
    let before = watched.pool.snapshot().endpoints[0].clone();
    let mut successor = silent("a");
    successor["metadata"]["uid"] = json!("uid-later");
    watched.api.delete("a");
    watched.api.apply(successor);
    let later = watched.wait(|s| s.endpoints.iter().any(|e| &*e.pod.uid == "uid-later")).await;
    assert_eq!(names(&later), ["a", "b"]);
    assert_eq!(*watched.removed.lock(), [before.slot]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_namespace_stays_fresh_without_a_new_list() {
    let watched = Watched::with_silent_pods(&["a"]).await;
    let first = watched.pool.snapshot().synced_at.expect("it was listed");
    let much_later = first + Duration::from_secs(600);
    watched.wait(|s| s.synced_at.is_some_and(|at| at >= much_later)).await;
    let age = watched.pool.snapshot().synced_at.expect("it was listed").elapsed();
    assert!(age <= Duration::from_secs(65), "one watch and its margin: {age:?}");
    let (lists, watches) = watched.api.served();
    assert_eq!(lists, 1);
    assert!(watches >= 10, "a watch is renewed every minute: {watches}");
}

#[tokio::test(start_paused = true)]
async fn after_a_bookmark_a_watch_resumes_where_an_older_one_would_be_gone() {
    let watched = Watched::with_silent_pods(&["a"]).await;
    let before = watched.pool.snapshot().synced_at;
    watched.api.bookmark();
    watched.wait(|s| s.synced_at > before).await;
    watched.api.compact();
    watched.api.cut(Cut::Politely);
    watched.api.apply(silent("b"));
    watched.wait_for_pods(&["a", "b"]).await;
    assert_eq!(watched.api.served().0, 1, "no new list");
}

#[tokio::test(start_paused = true)]
async fn after_410_a_new_list_replaces_the_set_without_a_gap() {
    let watched = Watched::with_silent_pods(&["a", "b", "c"]).await;
    watched.api.delete("c");
    watched.api.apply(silent("d"));
    watched.api.compact();
    watched.api.cut(Cut::Politely);
    watched.wait_for_pods(&["a", "b", "d"]).await;
    assert!(watched.api.served().0 >= 4, "it was listed twice");
    assert_eq!(watched.removed.lock().len(), 1, "only c has gone");
    assert_eq!(watched.pool.snapshot().discovery_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_begins_anew_with_a_list() {
    for code in [410, 500, 504] {
        let watched = Watched::with_silent_pods(&["a", "b"]).await;
        watched.api.delete("b");
        watched.api.apply(silent("c"));
        watched.api.compact();
        watched.api.set_mood(Mood::Forgetful(code));
        watched.api.cut(Cut::Broken);
        watched.wait_for_pods(&["a", "c"]).await;
        assert_eq!(watched.removed.lock().len(), 1, "{code}: only b has gone");
        watched.wait(|s| s.discovery_error.is_none()).await;
    }
}

/// The API server fails in this way for ten minutes; pods change behind its back. Returns what was
/// said about it, and how long after its return the change was seen.
async fn outage(mood: Mood, cut: Cut) -> (String, Duration) {
    let watched = Watched::with_silent_pods(&["a", "b", "c"]).await;
    let before = watched.pool.snapshot().synced_at;
    watched.api.set_mood(mood);
    watched.api.cut(cut);
    let away = watched.wait(|s| s.discovery_error.is_some()).await;
    for _ in 0..600 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let age = watched.pool.snapshot().synced_at.expect("it was listed").elapsed();
    assert!(age >= Duration::from_secs(600), "the set ages: {age:?}");
    assert_eq!(names(&watched.pool.snapshot()), ["a", "b", "c"], "and stays");

    watched.api.delete("a");
    watched.api.set_mood(Mood::Well);
    let returned = Instant::now();
    let back = watched.wait_for_pods(&["b", "c"]).await;
    let seen_after = returned.elapsed();
    assert!(back.synced_at > before);
    watched.wait(|s| s.discovery_error.is_none()).await;
    assert_eq!(watched.removed.lock().len(), 1);
    (away.discovery_error.as_deref().expect("waited for").to_owned(), seen_after)
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_waited_for_with_the_last_known_set() {
    let (error, seen_after) = outage(Mood::Failing(503), Cut::Politely).await;
    assert!(error.contains("the fake fails"), "{error}");
    assert!(seen_after <= Duration::from_secs(8), "{seen_after:?}");
    let (_, seen_after) = outage(Mood::Failing(500), Cut::Broken).await;
    assert!(seen_after <= Duration::from_secs(8), "{seen_after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_noticed_and_waited_for() {
    for cut in [Cut::Broken, Cut::Politely] {
        // A request that hangs is given up after 15 s.
        let (_, seen_after) = outage(Mood::Hanging, cut).await;
        assert!(seen_after <= Duration::from_secs(23), "{seen_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lost_rights_are_named_and_the_last_known_set_stays() {
    let (error, _) = outage(Mood::Failing(403), Cut::Politely).await;
    assert!(error.starts_with("RBAC") && error.contains("namespace `llm`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_resumed_without_a_new_list() {
    let watched = Watched::with_silent_pods(&["a"]).await;
    for name in ["b", "c", "d"] {
        watched.api.cut(Cut::Broken);
        watched.api.apply(silent(name));
        watched.wait(|s| names(s).contains(&name)).await;
    }
    assert_eq!(watched.api.served().0, 1);
    assert!(watched.removed.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_rights_there_is_no_set_and_the_reason_is_told() {
    let api = FakeApi::start().await;
    api.apply(silent("a"));
    api.set_mood(Mood::Failing(403));
    let watched = Watched::new(api);
    let snapshot = watched.wait(|s| s.discovery_error.is_some()).await;
    assert_eq!((snapshot.synced_at, snapshot.endpoints.len()), (None, 0));
    watched.api.set_mood(Mood::Well);
    watched.wait_for_pods(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_not_believed_while_a_pod_answers_probes() {
    let engine = FakeEngine::start("tiny").await;
    let api = FakeApi::start().await;
    api.apply(pod("a", engine.addr.port()));
    let watched = Watched::new(api);
    watched.wait(|s| s.ready().count() == 1).await;

    watched.api.hide_all();
    watched.api.compact();
    watched.api.cut(Cut::Broken);
    let kept = watched.wait(|s| s.kept_because_empty).await;
    assert_eq!(kept.ready().count(), 1);
    assert!(watched.pool.snapshot().kept_because_empty);

    engine.says.healthy.store(false, Ordering::SeqCst);
    watched.wait_for_pods(&[]).await;
    assert!(!watched.pool.snapshot().kept_because_empty);
}

#[tokio::test(start_paused = true)]
async fn a_missing_kubeconfig_is_told_and_tried_again() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("kubeconfig");
    let kubernetes = KubernetesSettings {
        enabled: true,
        kubeconfig: Some(path.clone()),
        ..KubernetesSettings::default()
    };
    let discovery = DiscoverySettings { kubernetes, ..DiscoverySettings::default() };
    let (pool, _guard) = pool::start(PoolSettings::default(), discovery, Hooks::default())
        .expect("the HTTP client builds");
    let snapshot = pool.wait_for(|s| s.discovery_error.is_some()).await.expect("it is running");
    let error = snapshot.discovery_error.as_deref().expect("waited for");
    assert!(error.starts_with("cannot reach Kubernetes"), "{error}");
    let api = FakeApi::start().await;
    std::fs::write(&path, api.kubeconfig()).expect("the file can be written");
    pool.wait_for(|s| s.synced_at.is_some()).await.expect("it is running");
}
