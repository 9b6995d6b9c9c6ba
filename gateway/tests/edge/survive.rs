//! A pod that fails in the middle of an answer, and a client that does not see it.

use router::policy::PolicyName;
use serde_json::Value;

use crate::support::client::{Reply as Answer, post, whole as body};
use crate::support::raw_pod::{LAST_CHUNK, RawPod, Reply, Then, stream};
use crate::support::{House, config, ms};

const CHAT: &str =
    r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":4}"#;
const ERROR: &str = r#"{"error":{"message":"EngineCore encountered an issue","code":500}}"#;
const DONE: &str = "[DONE]";

fn chunk(choice: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-a","object":"chat.completion.chunk","created":7,"model":"tiny","choices":[{{"index":0,{choice}}}]"#
    )
}

fn role() -> String {
    let choice =
        r#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#;
    chunk(choice) + r#","prompt_token_ids":[11,12,13],"prompt_text":null}"#
}

/// A token of the first pod.
fn token(text: &str, id: u32) -> String {
    let delta = format!(r#""delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null"#);
    chunk(&format!(r#"{delta},"token_ids":[{id}]"#)) + "}"
}

/// The last one.
fn last(text: &str, id: u32) -> String {
    let delta =
        format!(r#""delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":"length""#);
    chunk(&format!(r#"{delta},"stop_reason":null,"token_ids":[{id}]"#)) + "}"
}

/// A token of a pod that goes on.
fn next(text: &str, id: u32, finish: &str) -> String {
    format!(
        r#"{{"id":"cmpl-b","object":"text_completion","created":9,"model":"tiny","choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{finish},"stop_reason":null,"prompt_token_ids":null,"token_ids":[{id}]}}]}}"#
    )
}

fn whole(events: &[&str]) -> Reply {
    Reply::new([&stream(events)[..], LAST_CHUNK].concat(), Then::Next)
}

async fn pair(first: &RawPod, second: &RawPod) -> House {
    let mut config = config(&[first.addr, second.addr]);
    config.routing.policy = PolicyName::RoundRobin;
    config.pool.health.failed_requests = 1000;
    config.retry.budget = 1.0;
    House::start(config).await
}

/// Asks until the pod that fails has had its turn.
async fn ask(house: &House, failing: &mut RawPod) -> Answer {
    loop {
        let answer = house.post("/v1/chat/completions", CHAT).await;
        if failing.unseen() > 0 {
            return answer;
        }
    }
}

fn text(answer: &Answer) -> String {
    let events = answer.events().into_iter().filter(|event| *event != DONE);
    let texts = events.map(|event| {
        let event: Value = serde_json::from_str(event).expect("JSON");
        assert_eq!((&event["id"], &event["created"]), (&"chatcmpl-a".into(), &7.into()), "{event}");
        event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    });
    texts.collect()
}

/// A pod that says all of it, or the rest when it is asked to go on.
async fn other(all: &[&str], rest: &[&str], goes_on: bool) -> RawPod {
    RawPod::start([whole(if goes_on { rest } else { all })]).await
}

#[tokio::test]
async fn a_stream_whose_pod_dies_goes_on_at_another_to_the_same_bytes() {
    let (role, ab, last) = (role(), [token("A", 1), token("B", 2), token("C", 3)], last("D", 4));
    let all = [&role[..], &ab[0], &ab[1], &ab[2], &last, DONE];
    let rest = [&next("C", 3, "null")[..], &next("D", 4, r#""length""#), DONE];
    let uncut = {
        let pod = RawPod::start([whole(&all)]).await;
        let house = House::over(&[pod.addr]).await;
        let answer = house.post("/v1/chat/completions", CHAT).await;
        house.end().await;
        answer
    };
    assert!(!uncut.text().contains("token_ids\":["), "not asked for: {}", uncut.text());
    let error = stream(&[&role, &ab[0], &ab[1], ERROR, DONE]);
    let aborted = last.replace("\"length\"", "\"abort\"");
    for cut in [
        whole(&[&role, &ab[0], &ab[1], &aborted, DONE]),
        Reply::new(stream(&[&role, &ab[0], &ab[1]]), Then::Close),
        Reply::new(stream(&[&role, &ab[0], &ab[1]]), Then::Reset),
        Reply::new([&error[..], LAST_CHUNK].concat(), Then::Next),
        whole(&[&role, &ab[0], &ab[1]]),
    ] {
        let mut failing = RawPod::start([cut.clone()]).await;
        let mut pod = other(&all, &rest, true).await;
        let mut config = config(&[failing.addr, pod.addr]);
        config.routing.policy = PolicyName::RoundRobin;
        config.pool.health.failed_requests = 1000;
        let house = House::start(config).await;
        let answer = ask(&house, &mut failing).await;
        assert_eq!(answer.text(), uncut.text(), "{cut:?}");
        let mut asked = Vec::new();
        while asked.last().is_none_or(|body: &Value| body["messages"].is_array()) {
            asked.push(serde_json::from_slice(&pod.request().await).expect("JSON"));
        }
        let leg = asked.last().expect("it was asked to go on");
        assert_eq!(leg["prompt"], serde_json::json!([11, 12, 13, 1, 2]));
        assert_eq!((&leg["max_tokens"], &leg["return_token_ids"]), (&2.into(), &true.into()));
        let counted = house.metric("hearth_migrations_total{outcome=\"continued\"").await;
        assert_eq!(counted, 1);
        house.end().await;
    }
}

/// Streams at pods with a place for one each, of which the first one's pod dies. Gives that stream's text,
/// and how many requests the pods of the others got besides.
async fn moved(pods: usize, streams: usize) -> (String, usize) {
    let begun = Reply::new(stream(&[&role(), &token("A", 1)]), Then::Hold);
    let rest = whole(&[&next("B", 2, r#""stop""#), DONE]);
    let mut raw = Vec::new();
    for _ in 0..pods {
        raw.push(RawPod::start([begun.clone(), rest.clone()]).await);
    }
    let mut config = config(&raw.iter().map(|pod| pod.addr).collect::<Vec<_>>());
    config.routing.policy = PolicyName::RoundRobin;
    config.queue.per_pod = 1;
    let house = House::start(config).await;
    let mut full = Vec::new();
    for _ in 0..streams {
        let answer = house.client.open(post(house.addr, "/v1/chat/completions", body(CHAT))).await;
        let addr = answer.headers()["x-upstream-host"].to_str().expect("an address");
        let at = raw.iter().position(|pod| pod.addr.to_string() == addr).expect("a pod");
        full.push((answer, raw.swap_remove(at)));
    }
    raw.iter().for_each(|pod| pod.tell([rest.clone()]));
    let (first, dies) = full.swap_remove(0);
    drop(dies);
    let text = text(&Answer::of(first).await);
    let mut besides = 0;
    for (answer, mut pod) in full {
        pod.release();
        Answer::of(answer).await;
        besides += pod.unseen() - 1;
    }
    house.end().await;
    (text, besides)
}

#[tokio::test]
async fn a_stream_goes_on_where_a_place_is_free_and_nowhere_is_no_refusal() {
    // In turn it would be at a full one.
    assert_eq!(moved(4, 3).await, ("AB".to_owned(), 0));
    assert_eq!(moved(2, 2).await, ("AB".to_owned(), 1));
}

#[tokio::test]
async fn a_pod_that_falls_silent_is_left_and_its_stream_goes_on() {
    let (role, a) = (role(), token("A", 1));
    let mut failing = RawPod::start([Reply::new(stream(&[&role, &a]), Then::Hold)]).await;
    let rest = [&next("B", 2, r#""stop""#)[..], DONE];
    let pod = other(&[], &rest, true).await;
    let mut config = config(&[failing.addr, pod.addr]);
    config.routing.policy = PolicyName::RoundRobin;
    config.deadlines.between_bytes = ms(200);
    let house = House::start(config).await;
    let answer = ask(&house, &mut failing).await;
    assert_eq!(text(&answer), "AB");
    house.end().await;
}

#[tokio::test]
async fn what_comes_before_the_first_token_commits_to_nothing() {
    let role = role();
    for cut in [
        Reply::new(stream(&[&role]), Then::Close),
        Reply::new(stream(&[&role]), Then::Reset),
        whole(&[&role, ERROR, DONE]),
        whole(&[&role]),
    ] {
        let mut failing = RawPod::start([cut.clone()]).await;
        let (a, b) = (token("A", 1), last("B", 2));
        let good = RawPod::start([whole(&[&role, &a, &b, DONE])]).await;
        let house = pair(&failing, &good).await;
        let answer = ask(&house, &mut failing).await;
        assert_eq!(text(&answer), "AB", "{cut:?}: {}", answer.text());
        assert_eq!(answer.text().matches("assistant").count(), 1, "{cut:?}");
        assert_eq!(answer.header("x-upstream-host"), good.addr.to_string());
        house.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_but_for_its_end_is_ended_by_us() {
    let (role, a) = (role(), last("A", 1));
    for then in [Then::Close, Then::Reset] {
        let pod = RawPod::start([Reply::new(stream(&[&role, &a]), then)]).await;
        let house = House::over(&[pod.addr]).await;
        let answer = house.post("/v1/chat/completions", CHAT).await;
        assert_eq!(answer.events().last(), Some(&DONE), "{}", answer.text());
        assert_eq!(text(&answer), "A");
        assert_eq!(house.metric("hearth_errors_total").await, 0);
        house.end().await;
    }
}

#[tokio::test]
async fn a_plain_answer_that_is_cut_in_its_body_is_asked_of_another_pod() {
    let part = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let mut failing = RawPod::start([Reply::new(part, Then::Close)]).await;
    let good = RawPod::start([Reply::whole("200 OK", r#"{"a":123}"#)]).await;
    let house = pair(&failing, &good).await;
    let body = CHAT.replace(r#","stream":true"#, "");
    loop {
        let answer = house.post("/v1/chat/completions", &body).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, r#"{"a":123}"#));
        if failing.unseen() > 0 {
            break;
        }
    }
    house.end().await;
}

#[tokio::test]
async fn what_cannot_go_on_ends_with_an_error_and_no_done() {
    let (role, a) = (role(), token("A", 1));
    let body = CHAT.replace("\"max_tokens\":4", "\"presence_penalty\":1");
    for cut in [Reply::new(stream(&[&role, &a]), Then::Close), whole(&[&role, &a, ERROR, DONE])] {
        let pods = [RawPod::start([cut.clone()]).await, RawPod::start([cut.clone()]).await];
        let house = pair(&pods[0], &pods[1]).await;
        let answer = house.post("/v1/chat/completions", &body).await;
        let events = answer.events();
        assert!(events.last().is_some_and(|last| last.contains("\"error\"")), "{events:?}");
        assert!(!events.contains(&DONE), "{events:?}");
        assert_eq!(house.metric("hearth_migrations_total{outcome=\"feature\"").await, 1);
        house.end().await;
    }
}

#[tokio::test]
async fn nothing_is_asked_of_pods_where_migration_is_off() {
    let mut pod = RawPod::start([whole(&[&role(), &token("A", 1), &last("B", 2), DONE])]).await;
    let mut config = config(&[pod.addr]);
    config.survive.migrate = false;
    let house = House::start(config).await;
    assert_eq!(house.post("/v1/chat/completions", CHAT).await.status, 200);
    assert_eq!(pod.request().await, CHAT.as_bytes());
    house.end().await;
}

#[tokio::test]
async fn messages_and_responses_move_before_their_first_token_and_end_with_a_word_after_it() {
    const MESSAGE: &str = r#"{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    const RESPONSE: &str = r#"{"model":"tiny","input":"hi","stream":true}"#;
    let (start, a, aborted, stop) = (
        r#"{"type":"message_start","message":{"id":"m","stop_reason":null}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"A"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":null,"stop_sequence":null}}"#,
        r#"{"type":"message_stop"}"#,
    );
    let (created, text, cancelled, completed) = (
        r#"{"type":"response.created","response":{"status":"in_progress"}}"#,
        r#"{"type":"response.output_text.delta","delta":"A"}"#,
        r#"{"type":"response.completed","response":{"status":"cancelled"}}"#,
        r#"{"type":"response.completed","response":{"status":"completed"}}"#,
    );
    for (path, body, begins, token, gave_up, ends) in [
        ("/v1/messages", MESSAGE, start, a, aborted, stop),
        ("/v1/responses", RESPONSE, created, text, cancelled, completed),
    ] {
        for (cut, is_lost) in [
            (whole(&[begins]), false),
            (whole(&[begins, gave_up, ends]), false),
            (whole(&[begins, token]), true),
            (whole(&[begins, token, gave_up, ends]), true),
            (Reply::new(stream(&[begins, token]), Then::Reset), true),
        ] {
            let mut failing = RawPod::start([cut.clone()]).await;
            let good = RawPod::start([whole(&[begins, token, ends])]).await;
            let house = pair(&failing, &good).await;
            let mut answer = house.post(path, body).await;
            while failing.unseen() == 0 {
                answer = house.post(path, body).await;
            }
            let events = answer.events();
            let (first, last) = (events.first().copied(), events.last().copied());
            assert_eq!((answer.status.as_u16(), first), (200, Some(begins)), "{cut:?}");
            assert_eq!(last == Some(ends), !is_lost, "{cut:?}: {}", answer.text());
            assert_eq!(last.is_some_and(|it| it.contains("\"error\":{")), is_lost, "{cut:?}");
            let is_anthropic = answer.text().contains("event: error\ndata: {\"type\":\"error\"");
            assert_eq!(is_anthropic, is_lost && path == "/v1/messages", "{}", answer.text());
            house.end().await;
        }
    }
}
