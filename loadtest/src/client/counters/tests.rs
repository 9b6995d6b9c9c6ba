use super::*;

const PAGE: &str = r#"# HELP vllm:prefix_cache_queries_total Prefix cache queries, in tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 114.0
vllm:prefix_cache_queries_total{engine="1",model_name="tiny"} 6.0
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.795331601150435e+09
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 32.0
# TYPE vllm:external_prefix_cache_hits_total counter
vllm:external_prefix_cache_hits_total{engine="0",model_name="tiny"} 999.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0"} 1.0
"#;

#[test]
fn counters_are_summed_over_ranks_and_look_alikes_are_left_out() {
    let counters = parse_counters("http://pod", PAGE).expect("the page is complete");
    assert_eq!(counters, Counters { queries: 120, hits: 32 });
}

#[test]
fn a_page_without_the_series_is_an_error_that_names_it() {
    let error = parse_counters("http://pod:8000", "up 1\n").expect_err("nothing to read");
    assert_eq!(
        error.to_string(),
        "http://pod:8000 has no series `vllm:prefix_cache_queries_total`: \
         is prefix caching on, is it vLLM >= 0.9?"
    );
}

#[test]
fn the_cache_configuration_is_read() {
    let config = parse_config("http://pod", PAGE).expect("the page is complete");
    assert_eq!((config.block_size(), config.has_prefix_caching()), (Some(16), true));
    assert!(!EngineConfig::default().has_prefix_caching());
}

#[test]
fn a_counter_that_went_back_adds_nothing() {
    let before = Counters { queries: 10, hits: 5 };
    assert_eq!(Counters { queries: 3, hits: 9 }.since(before), Counters { queries: 0, hits: 4 });
}

#[tokio::test]
async fn prometheus_is_asked_for_the_sum_over_all_pods() {
    use axum::{Router, extract::RawQuery, routing::get};
    let answer = |RawQuery(query): RawQuery| async move {
        let value = match query.as_deref() {
            Some("query=sum(vllm:prefix_cache_queries_total)") => r#"[1754000000.1,"5827.0"]"#,
            Some("query=sum(vllm:prefix_cache_hits_total)") => r#"[1754000000.1,"5776"]"#,
            _ => r#"[]"#,
        };
        format!(r#"{{"status":"success","data":{{"result":[{{"metric":{{}},"value":{value}}}]}}}}"#)
    };
    let routes = Router::new().route("/api/v1/query", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let source = CounterSource::Prometheus(Client::new(&url, None).expect("a good URL"));
    let read = tokio::select! {
        read = source.read() => read.expect("both series are there"),
        served = axum::serve(listener, routes) => panic!("the server ended: {served:?}"),
    };
    assert_eq!(read.total, Counters { queries: 5827, hits: 5776 });
    assert!(read.pods.is_empty());
}
