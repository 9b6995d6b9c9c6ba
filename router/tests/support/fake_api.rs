//! A Kubernetes API server that knows pods of one namespace: list with pages, watch with bookmarks
//! and renewal, 410, and the ways in which it fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// With this status.
    Failing(u16),
    /// Well, but for a watch from before the compaction, which gets this status instead of an event.
    Forgetful(u16),
    /// Never.
    Hanging,
}

/// How open watches end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Politely,
    /// In the middle of the stream.
    Broken,
}

/// A running API server; dropping it closes its port.
#[derive(Debug)]
pub(crate) struct FakeApi {
    pub(crate) addr: SocketAddr,
    inner: Arc<Inner>,
    /// Aborts the server when it is dropped.
    _server: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    store: Mutex<Store>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Store {
    pods: BTreeMap<String, Value>,
    /// The resourceVersion of the last change.
    version: u64,
    /// Watch events with their versions, and the version up to which they are compacted.
    log: Vec<(u64, Value)>,
    compacted: u64,
    mood: Mood,
    /// Counts the cuts; how the last one was.
    cuts: u32,
    cut: Cut,
    page: usize,
    lists: u32,
    watches: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Params {
    #[serde(default)]
    watch: bool,
    #[serde(rename = "resourceVersion")]
    version: Option<String>,
    #[serde(rename = "continue")]
    from: Option<usize>,
    #[serde(rename = "timeoutSeconds")]
    timeout_s: Option<u64>,
    #[serde(rename = "labelSelector")]
    selector: Option<String>,
    #[serde(rename = "allowWatchBookmarks", default)]
    bookmarks: bool,
}

/// Where one watch stands.
struct Watching {
    inner: Arc<Inner>,
    news: watch::Receiver<()>,
    version: u64,
    cuts: u32,
    until: Instant,
}

pub(crate) const NAMESPACE: &str = "llm";

// === impl FakeApi ===

impl FakeApi {
    pub(crate) async fn start() -> Self {
        let store = Store {
            pods: BTreeMap::new(),
            version: 1,
            log: Vec::new(),
            compacted: 0,
            mood: Mood::Well,
            cuts: 0,
            cut: Cut::Politely,
            page: 2,
            lists: 0,
            watches: 0,
        };
        let inner = Arc::new(Inner { store: Mutex::new(store), news: watch::Sender::new(()) });
        let app = Router::new()
            .route(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), get(pods))
            .with_state(Arc::clone(&inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let addr = listener.local_addr().expect("it is bound");
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, app).await.expect("axum serves until it is aborted");
        });
        Self { addr, inner, _server: server }
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.addr)}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
            "current-context": "x",
        })
        .to_string()
    }

    /// Creates or changes a pod.
    pub(crate) fn apply(&self, mut pod: Value) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
        self.change(|store| {
            pod["metadata"]["resourceVersion"] = json!(store.version.to_string());
            let kind = if store.pods.contains_key(&name) { "MODIFIED" } else { "ADDED" };
            store.pods.insert(name, pod.clone());
            Some(json!({"type": kind, "object": pod}))
        });
    }

    /// Deletes a pod.
    pub(crate) fn delete(&self, name: &str) {
        self.change(|store| {
            let mut pod = store.pods.remove(name).expect("the pod exists");
            pod["metadata"]["resourceVersion"] = json!(store.version.to_string());
            Some(json!({"type": "DELETED", "object": pod}))
        });
    }

    /// Tells open watches how far they are, as a real one does every minute.
    pub(crate) fn bookmark(&self) {
        self.change(|store| {
            let version = store.version.to_string();
            let object = json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"resourceVersion": version, "creationTimestamp": null},
                "spec": {"containers": null}, "status": {},
            });
            Some(json!({"type": "BOOKMARK", "object": object}))
        });
    }

    /// Removes every pod without a watch event: as after a change of rights.
    pub(crate) fn hide_all(&self) {
        self.change(|store| {
            store.pods.clear();
            None
        });
    }

    /// Forgets all events so far: a watch from before them is 410 Gone.
    pub(crate) fn compact(&self) {
        let mut store = self.inner.store.lock();
        store.compacted = store.version;
        store.log.clear();
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.inner.store.lock().mood = mood;
    }

    /// Ends all open watches.
    pub(crate) fn cut(&self, cut: Cut) {
        let mut store = self.inner.store.lock();
        store.cut = cut;
        store.cuts += 1;
        drop(store);
        self.inner.news.send_replace(());
    }

    /// How many list requests (pages) and watches were answered.
    pub(crate) fn served(&self) -> (u32, u32) {
        let store = self.inner.store.lock();
        (store.lists, store.watches)
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> Option<Value>) {
        let mut store = self.inner.store.lock();
        store.version += 1;
        if let Some(event) = change(&mut store) {
            let version = store.version;
            store.log.push((version, event));
        }
        drop(store);
        self.inner.news.send_replace(());
    }
}

async fn pods(State(inner): State<Arc<Inner>>, Query(params): Query<Params>) -> Response {
    assert_eq!(params.selector.as_deref(), Some("llm-d.ai/inferenceServing=true"));
    let mood = inner.store.lock().mood;
    match mood {
        Mood::Forgetful(code) if params.watch && is_from_before(&inner, &params) => refuse(code),
        Mood::Well | Mood::Forgetful(_) if params.watch => watch(inner, &params),
        Mood::Well | Mood::Forgetful(_) => list(&mut inner.store.lock(), &params),
        Mood::Failing(code) => refuse(code),
        Mood::Hanging => std::future::pending().await,
    }
}

fn is_from_before(inner: &Inner, params: &Params) -> bool {
    let version = params.version.as_deref().and_then(|version| version.parse::<u64>().ok());
    version.is_some_and(|version| version < inner.store.lock().compacted)
}

fn refuse(code: u16) -> Response {
    let code = StatusCode::from_u16(code).expect("it is a status");
    (code, failure(code, "the fake fails").to_string()).into_response()
}

fn failure(code: StatusCode, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": code.canonical_reason(), "code": code.as_u16(),
    })
}

fn list(store: &mut Store, params: &Params) -> Response {
    store.lists += 1;
    let from = params.from.unwrap_or(0);
    let items: Vec<_> = store.pods.values().skip(from).take(store.page).collect();
    let next = from + items.len();
    let more = (next < store.pods.len()).then(|| next.to_string());
    let metadata = json!({"resourceVersion": store.version.to_string(), "continue": more});
    let body = json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items});
    body.to_string().into_response()
}

fn watch(inner: Arc<Inner>, params: &Params) -> Response {
    assert!(params.bookmarks, "bookmarks are asked for");
    let version = params.version.as_deref().and_then(|version| version.parse().ok());
    let cuts = {
        let mut store = inner.store.lock();
        store.watches += 1;
        store.cuts
    };
    let watching = Watching {
        news: inner.news.subscribe(),
        version: version.expect("a watch resumes from a version"),
        cuts,
        until: Instant::now() + Duration::from_secs(params.timeout_s.expect("it is bounded")),
        inner,
    };
    let lines = stream::unfold(Some(watching), |watching| async move { watching?.next().await });
    Body::from_stream(lines).into_response()
}

// === impl Watching ===

type Line = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl Watching {
    async fn next(mut self) -> Option<(Line, Option<Self>)> {
        loop {
            if let Some(step) = self.step() {
                let (line, goes_on) = step?;
                return Some((line, goes_on.then_some(self)));
            }
            // Time to renew, or the server is gone: a polite end.
            tokio::time::timeout_at(self.until, self.news.changed()).await.ok()?.ok()?;
        }
    }

    /// The next line and whether more follow; `Some(None)` is a polite end, `None` no news.
    fn step(&mut self) -> Option<Option<(Line, bool)>> {
        let store = self.inner.store.lock();
        if store.cuts != self.cuts {
            return Some(match store.cut {
                Cut::Politely => None,
                Cut::Broken => Some((Err("the stream breaks".into()), false)),
            });
        }
        if self.version < store.compacted {
            let gone = failure(StatusCode::GONE, "too old resource version");
            return Some(Some((line(&json!({"type": "ERROR", "object": gone})), false)));
        }
        let (version, event) = store.log.iter().find(|(version, _)| *version > self.version)?;
        self.version = *version;
        Some(Some((line(event), true)))
    }
}

fn line(event: &Value) -> Line {
    Ok(Bytes::from(format!("{event}\n")))
}
