use super::*;
use crate::config::Config;

/// In the shape of the seed's ConfigMap: a picker that is fed nothing, behind swallowed flags.
const SEED: &str = r#"apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
      - args:
        - --secureServing
        - "false"
        - --configFile
        - /config/default-config.yaml
---
apiVersion: v1
kind: ConfigMap
data:
  default-config.yaml: |
    apiVersion: inference.networking.x-k8s.io/v1alpha1
    kind: EndpointPickerConfig
    plugins:
    - type: prefix-cache-scorer
      parameters:
        mode: cache_tracking
        tokenProcessorConfig:
          blockSize: 16
          hashSeed: "42"
    - type: decode-filter
    - type: max-score-picker
    - type: single-profile-handler
    schedulingProfiles:
    - name: default
      plugins:
      - pluginRef: decode-filter
      - pluginRef: prefix-cache-scorer
        weight: 90
"#;

const TODAY: &str = r#"apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: token-producer
  parameters: {modelName: Qwen/Qwen3-32B}
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSizeTokens: 64}
    kvEventsConfig: {podDiscoveryConfig: {socketPort: 5556, replaySocketPort: 5557}}
- type: weighted-wish
flowControl: {maxBytes: 1Gi}
"#;

fn import(text: &str) -> Import {
    let mut import = Import::default();
    import.read("epp.yaml", text).expect("it can be read");
    import
}

/// What is printed must start Hearth.
fn loads(import: &Import) -> Config {
    let file = tempfile::NamedTempFile::new().expect("there is a temporary folder");
    std::fs::write(file.path(), import.to_yaml()).expect("the file can be written");
    Config::load(Some(file.path()), [], &[]).expect("it is a configuration").config
}

#[test]
fn the_seeds_mistakes_are_named_with_their_lines() {
    let import = import(SEED);
    let notes = import.notes.join("\n");
    assert!(notes.contains("epp.yaml:8: `--secureServing false`"), "{notes}");
    assert!(
        notes.contains("epp.yaml:23: tokenProcessorConfig stands one level too high"),
        "{notes}"
    );
    assert!(notes.contains("epp.yaml:34: prefix-cache-scorer: weight 90"), "{notes}");
    assert!(loads(&import).kubernetes.enabled);
}

#[test]
fn what_maps_becomes_settings_and_the_rest_a_line() {
    let import = import(TODAY);
    let config = loads(&import);
    assert_eq!((config.kv_events.port, config.kv_events.replay_port), (Some(5556), Some(5557)));
    assert_eq!(config.tokenizers["Qwen/Qwen3-32B"].to_string(), "hf:Qwen/Qwen3-32B");
    let notes = import.notes.join("\n");
    assert!(notes.contains("weighted-wish: unknown"), "{notes}");
    assert!(notes.contains("epp.yaml:12: flowControl: not mapped"), "{notes}");
    assert!(!notes.contains("too high"), "today it stands where it belongs: {notes}");
}

#[test]
fn a_file_without_a_picker_is_an_error() {
    let mut import = Import::default();
    let error = import.read("x.yaml", "kind: ConfigMap\n").expect_err("there is nothing in it");
    assert!(error.to_string().starts_with("x.yaml: no EndpointPickerConfig"), "{error}");
    let error = import.read("y.yaml", "a: [\n").expect_err("it is no YAML");
    assert!(error.to_string().starts_with("y.yaml:1: "), "{error}");
}

#[test]
fn the_seeds_four_configurations_start_hearth_and_lose_nothing_in_silence() {
    let files = [
        ("default.yaml", include_str!("fixtures/default.yaml")),
        ("tracking.yaml", include_str!("fixtures/tracking.yaml")),
        ("estimate.yaml", include_str!("fixtures/estimate.yaml")),
        ("pd.yaml", include_str!("fixtures/pd.yaml")),
    ];
    let mut notes = Vec::new();
    for (file, text) in files {
        let mut import = Import::default();
        import.read(file, text).expect("it can be read");
        assert_eq!(loads(&import).routing.policy.name(), "warm", "{file}");
        let bind = loads(&import).kv_events.bind;
        assert_eq!(bind.map(|it| it.port()), (file == "tracking.yaml").then_some(5557), "{file}");
        notes.append(&mut import.notes);
    }
    insta::assert_snapshot!(notes.join("\n"));
}

#[test]
fn a_bound_for_splits_is_taken_over() {
    let text = "kind: EndpointPickerConfig\nplugins:\n- type: prefix-based-pd-decider\n  parameters: {nonCachedTokens: 512}\n- type: topology-extractor\n";
    let import = import(text);
    assert_eq!(loads(&import).split.min_uncached_tokens, Some(512));
    assert_eq!(import.notes.len(), 2, "both plugins have their line: {:?}", import.notes);
}
