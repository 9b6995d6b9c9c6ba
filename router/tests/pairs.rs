//! What is learned of a pair of pods: real bodies, hashes and bookings; only the pods are missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use kv_index::Slots;
use router::openai::Api;
use router::policy;
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Pool, Record, Role, Snapshot};
use router::query::Query;
use router::split::SplitTerms;
use router::{Placement, Router, Tokenizers};

fn router() -> Router {
    let mut slots = Slots::default();
    let endpoints = [(1, Role::Decode), (2, Role::Prefill)].map(|(n, role)| {
        let models =
            [ModelCard { id: "m".into(), parent: None, max_model_len: None, raw: "{}".into() }];
        let pod = Pod::plain(&format!("pod-{n}"), ([127, 0, 0, 1], 1000 + n).into());
        Arc::new(Endpoint {
            kv_events: Arc::default(),
            pod: Pod { role, ..pod },
            slot: slots.acquire(),
            health: Health::Ready,
            is_cordoned: false,
            models: models.into(),
            engine: EngineHints { block_size: Some(16), ..EngineHints::default() },
            record: Record::default(),
        })
    });
    let pool = Pool::still(Snapshot { endpoints: endpoints.into(), ..Snapshot::default() });
    let settings = policy::Settings::default();
    Router::new(pool, settings, Default::default(), Tokenizers::default())
}

/// A prompt that nobody holds, about so many tokens long.
fn cold(router: &Router, seed: usize, tokens: usize) -> Query {
    let word =
        |n: usize| format!("{:07x} ", (seed * 7_919 + n).wrapping_mul(2_654_435_761) % (1 << 28));
    let text: String = (0..tokens / 2).map(word).collect();
    let body = format!(r#"{{"model":"m","prompt":"{text}"}}"#);
    router.read(Api::Completions, &HeaderMap::new(), body.as_bytes()).expect("it is a completion")
}

fn terms(placement: &Placement) -> SplitTerms {
    placement.decision.split.and_then(|split| split.terms).expect("a pair was weighed")
}

#[test]
fn what_stands_in_line_at_the_decode_pod_is_no_part_of_a_transfer() {
    let router = router();
    for round in 0..30 {
        let mut split = router.place(&cold(&router, round, 4_000), &[]).expect("pods are ready");
        assert!(split.prefill.is_some(), "{:?}", split.decision);
        // A second and more of another prompt is computed there when the blocks are asked for.
        let other = cold(&router, 1_000 + round, 12_000);
        let other = router.place_whole(&other, &[], "test").expect("pods are ready");
        let queued_ms = 0.1 * f64::from(other.decision.prompt_tokens);
        assert!(queued_ms > 1_000.0, "{queued_ms}");
        let sent = Instant::now();
        split.handed_over(400.0, sent);
        split.first_token(sent + Duration::from_secs_f64((queued_ms + 50.0) / 1e3));
    }
    let next = router.place(&cold(&router, 99, 4_000), &[]).expect("pods are ready");
    let learned = terms(&next).transfer_ms;
    assert!((40.0..80.0).contains(&learned), "{learned} ms");
}
