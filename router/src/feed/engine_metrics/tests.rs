use super::*;

/// As vLLM 0.32 writes it, shortened, with two data-parallel engines.
const TEXT: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 70.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{_block_size_resolved="True",block_size="32",engine="0",hash_block_size="None",kv_cache_dtype_skip_layers="[]",num_cpu_blocks="None",num_gpu_blocks="32768",num_gpu_blocks_override="None"} 1.0
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="32768"} 1.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 99.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 32.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 10.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 1.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 2.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 1.0
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7953315201e+09
"#;

#[test]
fn the_families_of_vllm_become_hints() {
    let hints = parse(TEXT, None).expect("it is Prometheus text");
    let expected = EngineHints {
        block_size: Some(32),
        num_blocks: Some(32768),
        running: 7.0,
        waiting: 1.0,
        kv_usage: 0.5,
        computed_tokens: 78.0,
        ended_requests: 3.0,
        started_s: Some(1_795_331_520.1),
        prompt_tokens: Some(100.0),
        engine: None,
        read_at: None,
    };
    assert_eq!(hints, expected);
}

#[test]
fn the_engines_of_several_ranks_are_told_apart() {
    let of = |rank| parse(TEXT, Some(rank)).expect("it is Prometheus text");
    let (first, second) = (of(0), of(1));
    assert_eq!((first.running, first.waiting, first.prompt_tokens), (3.0, 1.0, Some(99.0)));
    assert_eq!((second.running, second.waiting, second.prompt_tokens), (4.0, 0.0, Some(1.0)));
    assert_eq!((first.num_blocks, second.num_blocks), (Some(16384), Some(16384)));
    assert_eq!(first.started_s, second.started_s, "the process is one");
    let all = parse(TEXT, None).expect("it is Prometheus text");
    assert!(!first.has_restarted_since(&all), "fewer engines are no fewer tokens");
}

#[test]
fn a_later_start_and_a_counter_that_runs_backwards_are_a_restart() {
    let hints = |started_s, prompt_tokens| EngineHints {
        started_s,
        prompt_tokens,
        ..EngineHints::default()
    };
    let before = hints(Some(1e9), Some(99.0));
    for (now, restarted) in [
        (hints(Some(1e9), Some(99.0)), false),
        (hints(Some(1e9), Some(120.0)), false),
        (hints(Some(1e9 + 7.0), Some(120.0)), true),
        (hints(None, Some(3.0)), true),
        (hints(None, None), false),
    ] {
        assert_eq!(now.has_restarted_since(&before), restarted, "{now:?}");
        assert!(!now.has_restarted_since(&EngineHints::default()), "nothing was known");
    }
}

#[test]
fn missing_families_and_rubbish_are_no_hints() {
    let none = EngineHints::default();
    for text in ["", "<html>", "vllm:num_requests_running NaN\n", "vllm:num_requests_running\n"] {
        assert_eq!(
            parse(text, None).expect("lines that are no samples are skipped"),
            none,
            "{text}"
        );
    }
    let unsized_yet = r#"vllm:cache_config_info{block_size="None",num_gpu_blocks="None"} 1.0"#;
    assert_eq!(parse(unsized_yet, None).expect("it is Prometheus text"), none);
}
