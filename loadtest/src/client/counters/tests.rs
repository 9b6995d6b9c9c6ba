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
