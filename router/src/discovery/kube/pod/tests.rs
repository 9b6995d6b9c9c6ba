use serde_json::{Value, json};

use super::*;

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "vllm-0", "uid": "u0", "labels": {}},
        "spec": {"containers": [
            {"name": "agent", "ports": [{"name": "metrics", "containerPort": 9090}]},
            {"name": "vllm", "ports": [{"containerPort": 1}, {"name": "http", "containerPort": 8200}]},
        ]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        },
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("it is a pod")
}

fn seen(pod: &Pod) -> Option<Sighting> {
    sighting(pod, kind(pod), "http", 8000)
}

#[test]
fn a_ready_pod_with_an_ip_serves_on_its_named_port() {
    let seen = seen(&pod(|_| {})).expect("it may serve");
    assert!(seen.serving);
    assert_eq!(seen.pod.addr.to_string(), "10.0.0.7:8200");
    assert_eq!((&*seen.pod.uid, &*seen.pod.name, seen.pod.role), ("u0", "vllm-0", Role::Both));
}

#[test]
fn without_that_name_the_port_is_the_configured_one() {
    let pod = pod(|_| {});
    for (name, port) in [("metrics", 9090), ("grpc", 8000), ("", 8000)] {
        let seen = sighting(&pod, kind(&pod), name, 8000).expect("it may serve");
        assert_eq!(seen.pod.addr.port(), port, "{name}");
    }
}

#[test]
fn a_pod_that_is_not_ready_or_terminating_stays_known_and_gets_no_traffic() {
    let unready = pod(|pod| pod["status"]["conditions"][1]["status"] = json!("False"));
    let fresh = pod(|pod| pod["status"]["conditions"] = json!(null));
    let ending = pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    for pod in [unready, fresh, ending] {
        assert!(!seen(&pod).expect("it is known").serving);
    }
}

#[test]
fn a_pod_that_terminates_says_how_long_it_has() {
    let ending = |grace: Value| {
        pod(|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = grace;
        })
    };
    let grace = |pod: &Pod| seen(pod).expect("it is known").grace;
    assert_eq!(grace(&pod(|_| {})), None);
    assert_eq!(grace(&ending(json!(30))), Some(Duration::from_secs(30)));
    for none in [json!(null), json!(0), json!(-1)] {
        assert_eq!(grace(&ending(none)), Some(Duration::ZERO));
    }
}

#[test]
fn a_pod_without_an_ip_or_at_its_end_is_none() {
    let homeless = pod(|pod| pod["status"]["podIP"] = json!(null));
    let unborn = pod(|pod| pod["status"] = json!(null));
    let failed = pod(|pod| pod["status"]["phase"] = json!("Failed"));
    for pod in [homeless, unborn, failed] {
        assert_eq!(seen(&pod), None);
    }
}

#[test]
fn role_labels_of_llm_d_are_read_as_its_filters_do() {
    for (label, expected) in [
        ("prefill", Kind::Role(Role::Prefill)),
        ("decode", Kind::Role(Role::Decode)),
        ("both", Kind::Role(Role::Both)),
        ("", Kind::Role(Role::Both)),
        ("prefill-decode", Kind::Role(Role::Both)),
        ("decode-prefill", Kind::Role(Role::Both)),
        ("encode-prefill", Kind::Role(Role::Prefill)),
        ("encode-prefill-decode", Kind::Role(Role::Both)),
        ("encode", Kind::Encoder),
        ("Decode", Kind::Strange("Decode")),
        ("prefill-draft", Kind::Strange("prefill-draft")),
    ] {
        let pod = pod(|pod| pod["metadata"]["labels"]["llm-d.ai/role"] = json!(label));
        assert_eq!(kind(&pod), expected);
        assert_eq!(seen(&pod).is_none(), expected == Kind::Encoder, "{label}");
    }
}

#[test]
fn every_port_of_a_pool_is_an_endpoint_of_its_own() {
    let pod = pod(|_| {});
    let all = sightings(&pod, kind(&pod), "", &[8000, 8001]);
    let seen: Vec<_> = all.iter().map(|s| (&*s.pod.uid, s.pod.addr.port())).collect();
    assert_eq!(seen, [("u0", 8000), ("u0:8001", 8001)]);
    let named = sightings(&pod, kind(&pod), "http", &[8000, 8001]);
    assert_eq!(named.iter().map(|s| s.pod.addr.port()).collect::<Vec<_>>(), [8200]);
}
