//! A small client, the fixtures, and the comparison of JSON shapes.

use std::path::Path;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_LENGTH, DATE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use loadtest::simulator::{Config, EngineConfig, Simulator};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A pod so fast that tests do not wait, with the context length of the fixtures.
pub(crate) fn fast() -> Config {
    let engine = EngineConfig {
        prefill_tokens_per_s: 1e9,
        decode_ms: 0.0,
        decode_ms_per_seq: 0.001,
        ..EngineConfig::default()
    };
    Config { model: "tiny".to_owned(), max_model_len: 8192, engine, ..Config::default() }
}

/// A pod whose prefill takes for ever.
pub(crate) fn frozen() -> Config {
    let engine = EngineConfig { prefill_tokens_per_s: 0.001, ..EngineConfig::default() };
    Config { engine, ..fast() }
}

pub(crate) async fn start(config: Config) -> Simulator {
    Simulator::start(config).await.expect("a free port exists")
}

pub(crate) fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn request(method: Method, url: String, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

pub(crate) async fn read(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("the body is whole").to_bytes();
    let body = String::from_utf8(bytes.to_vec()).expect("answers are UTF-8");
    Answer { status: parts.status, headers: parts.headers, body }
}

pub(crate) async fn post(pod: &Simulator, path: &str, body: &Value) -> Answer {
    let request = request(Method::POST, format!("{}{path}", pod.url()), body.to_string());
    read(client().request(request).await.expect("an answer")).await
}

pub(crate) async fn get(pod: &Simulator, path: &str) -> Answer {
    let request = request(Method::GET, format!("{}{path}", pod.url()), "");
    read(client().request(request).await.expect("an answer")).await
}

/// Asks `/load` until it says `expected`. Each round is a real round trip; the test harness's own
/// limit is the only clock.
pub(crate) async fn until_load(pod: &Simulator, expected: u64) {
    while get(pod, "/load").await.json()["server_load"] != expected {}
}

// === impl Answer ===

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// The `data:` of every event that is JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect("an event's data is JSON"))
            .collect()
    }
}

/// A fixture as it is.
pub(crate) fn fixture_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vllm").join(name);
    std::fs::read_to_string(path).expect("the fixture is committed")
}

/// What a real vLLM answered.
pub(crate) fn fixture(name: &str) -> Answer {
    let text = fixture_text(name).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").expect("a head and a body");
    let (line, fields) = head.split_once('\n').expect("a status line and headers");
    let header = |field: &str| -> (HeaderName, HeaderValue) {
        let (name, value) = field.split_once(": ").expect("a name and a value");
        (name.parse().expect("a name"), value.parse().expect("a value"))
    };
    let status = line.split_whitespace().nth(1).expect("a status");
    Answer {
        status: status.parse().expect("a status"),
        headers: fields.lines().map(header).collect(),
        body: body.to_owned(),
    }
}

/// Asserts the status and every header: what says how the body ends (`content-length`,
/// `transfer-encoding`) among them. What a date or a length says differs from answer to answer.
pub(crate) fn assert_same_head(ours: &Answer, real: &Answer, name: &str) {
    assert_eq!(ours.status, real.status, "{name}: {}", ours.body);
    let told = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        for varying in [DATE, CONTENT_LENGTH] {
            if let Some(value) = headers.get_mut(varying) {
                *value = HeaderValue::from_static("any");
            }
        }
        headers
    };
    assert_eq!(told(ours), told(real), "headers of {name}");
}

/// Fields that are null in the fixtures because their server ran without a flag that ours has, and
/// the other way round.
const MAY_BE_NULL: &[&str] = &["prompt_tokens_details"];

/// Asserts that `ours` has the keys of `real`, in its order, and values of its types.
pub(crate) fn assert_same_shape(ours: &Value, real: &Value, path: &str) {
    match (ours, real) {
        (Value::Object(ours), Value::Object(real)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(ours), keys(real), "keys at {path}");
            for (key, value) in ours {
                assert_same_shape(value, &real[key], &format!("{path}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(real)) => {
            for (n, (ours, real)) in ours.iter().zip(real).enumerate() {
                assert_same_shape(ours, real, &format!("{path}[{n}]"));
            }
        }
        (ours, real) => {
            let kind = std::mem::discriminant(ours) == std::mem::discriminant(real);
            let excused = MAY_BE_NULL.iter().any(|field| path.ends_with(field));
            let strings = ours.is_string() && real.is_string();
            assert!(kind || strings || excused, "at {path}: ours {ours}, real {real}");
        }
    }
}
