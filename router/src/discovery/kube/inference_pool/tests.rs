use serde_json::{Value, json};

use super::*;

fn pool(spec: Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "llm-d"}, "spec": spec,
    });
    serde_json::from_value(object).expect("it is an object")
}

#[test]
fn both_versions_name_pods_and_ports() {
    let now = pool(json!({
        "selector": {"matchLabels": {"app": "vllm", "llm-d.ai/role": "decode"}},
        "targetPorts": [{"number": 8000}, {"number": 8001}],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    }));
    let seen = selection(&now).expect("it can be read");
    assert_eq!(seen.selector, "app=vllm,llm-d.ai/role=decode");
    assert_eq!(seen.ports, [8000, 8001]);

    let old = pool(json!({
        "selector": {"llm-d.ai/inferenceServing": "true"},
        "targetPortNumber": 8000,
        "extensionRef": {"name": "epp"},
    }));
    let seen = selection(&old).expect("it can be read");
    assert_eq!((&*seen.selector, &*seen.ports), ("llm-d.ai/inferenceServing=true", &[8000][..]));
}

#[test]
fn a_pool_that_cannot_be_followed_says_why() {
    let labels = json!({"matchLabels": {"app": "vllm"}});
    for (spec, wanted) in [
        (json!({"selector": {"matchLabels": {}}, "targetPorts": [{"number": 1}]}), "every pod"),
        (json!({"selector": labels, "targetPorts": []}), "no port"),
        (
            json!({"selector": labels, "targetPorts": [{"number": 1}],
                "appProtocol": "kubernetes.io/h2c"}),
            "appProtocol",
        ),
        (json!({"targetPorts": [{"number": 1}]}), "selector"),
    ] {
        let error = selection(&pool(spec)).expect_err(wanted).to_string();
        assert!(error.contains("llm-d") && error.contains(wanted), "{error}");
    }
}
