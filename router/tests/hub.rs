//! Tokenizers that come from a hub: a server of our own, a cache in a folder of our own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use axum::Router as Routes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use router::Tokenizers;
use router::tokenize::{Hub, HubRepo, TokenizerSource};
use tokio::task::JoinHandle;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/assets/tokenizer")
}

/// A hub with one repository, `owner/small`, whose revision `main` is the commit `c0ffee`; it wants
/// the token `sesame`.
struct FakeHub {
    endpoint: String,
    task: JoinHandle<()>,
}

impl FakeHub {
    async fn start(files: &'static [&'static str]) -> Self {
        let path = "/{owner}/{name}/resolve/{revision}/{file}";
        let routes = Routes::new().route(path, get(file)).with_state(files);
        let listener =
            tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self { endpoint, task }
    }

    fn hub(&self, cache: &Path) -> Hub {
        let (endpoint, token) = (Some(self.endpoint.clone()), Some("sesame".to_owned()));
        Hub { cache: cache.to_owned(), endpoint, token, offline: false }
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file, or the range of it that is asked for, as the hub answers.
async fn file(
    State(files): State<&'static [&'static str]>,
    UrlPath((owner, name, revision, file)): UrlPath<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|it| it != "Bearer sesame") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let is_here = (&*owner, &*name, &*revision) == ("owner", "small", "main");
    if !is_here || !files.contains(&&*file) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let bytes = std::fs::read(assets().join(&file)).expect("the asset is committed");
    let range = headers[header::RANGE].to_str().expect("ASCII").trim_start_matches("bytes=");
    let (from, to) = range.split_once('-').expect("a range");
    let from: usize = from.parse().expect("a number");
    let to = to.parse::<usize>().expect("a number").min(bytes.len() - 1);
    let answer = [
        ("x-repo-commit", "c0ffee".to_owned()),
        ("etag", format!("\"{file}\"")),
        ("content-range", format!("bytes {from}-{to}/{}", bytes.len())),
    ];
    (StatusCode::PARTIAL_CONTENT, answer, bytes[from..=to].to_vec()).into_response()
}

const ALL: &[&str] = &["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

fn source(text: &str) -> TokenizerSource {
    text.parse().expect("it is a source")
}

#[tokio::test]
async fn a_tokenizer_that_is_not_here_is_downloaded_and_then_in_the_cache() {
    let (fake, cache) = (FakeHub::start(ALL).await, tempfile::tempdir().expect("a folder"));
    let hub = fake.hub(cache.path());
    let mut tokenizers = Tokenizers::default();
    tokenizers.load("m", &source("hf:owner/small"), &hub).expect("missing is no error");
    assert_eq!(tokenizers.report()[0].state, "waiting");
    assert!(tokenizers.get("m").is_none());
    tokenizers.fetch(&hub).await;
    let report = &tokenizers.report()[0];
    assert_eq!((report.state, &*report.source), ("ready", "hf:owner/small"));
    assert!(tokenizers.get("m").expect("it is here").has_template());

    let offline = Hub { endpoint: None, offline: true, ..hub };
    let mut again = Tokenizers::default();
    again.load("m", &source("hf:owner/small@c0ffee"), &offline).expect("it is in the cache");
    assert_eq!(again.report()[0].state, "ready");
}

#[tokio::test]
async fn a_repository_may_have_a_tokenizer_and_nothing_else() {
    let (fake, cache) = (FakeHub::start(&ALL[..1]).await, tempfile::tempdir().expect("a folder"));
    let hub = fake.hub(cache.path());
    let mut tokenizers = Tokenizers::default();
    tokenizers.load("m", &source("hf:owner/small"), &hub).expect("missing is no error");
    tokenizers.fetch(&hub).await;
    assert!(!tokenizers.get("m").expect("it is here").has_template());
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let (fake, cache) = (FakeHub::start(ALL).await, tempfile::tempdir().expect("a folder"));
    let hub = fake.hub(cache.path());
    let repo = |id: &str| HubRepo { id: id.into(), revision: "main".into() };
    let why = async |hub: Hub, id| hub.download(&repo(id)).await.expect_err("no").to_string();
    let missing = why(hub.clone(), "owner/none").await;
    assert!(missing.contains("tokenizer.json") && missing.contains("404"), "{missing}");
    let locked = why(Hub { token: None, ..hub.clone() }, "owner/small").await;
    assert!(locked.contains("401"), "{locked}");
    let offline = why(Hub { offline: true, ..hub }, "owner/small").await;
    assert!(offline.contains("HF_HUB_OFFLINE"), "{offline}");
}
