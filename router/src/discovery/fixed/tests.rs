use super::*;

fn read(json: &str) -> Result<StaticEndpoint, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn an_address_is_read_in_both_forms() {
    let text = |json| Written::from(read(json).expect("it is an address"));
    for (json, url, role) in [
        (r#""http://10.0.0.7:8000""#, "http://10.0.0.7:8000", Role::Both),
        (r#""vllm.llm:8000""#, "http://vllm.llm:8000", Role::Both),
        (r#""[::1]:8000""#, "http://[::1]:8000", Role::Both),
        (r#""http://vllm/""#, "http://vllm:80", Role::Both),
        (r#"{"url":"10.0.0.7:1","role":"prefill"}"#, "http://10.0.0.7:1", Role::Prefill),
    ] {
        let written = text(json);
        assert_eq!((written.url.as_str(), written.role), (url, role));
    }
    let placed = text(r#"{"url":"10.0.0.7:1","role":"decode","topology":"rack-3"}"#);
    assert_eq!(placed.topology.as_deref(), Some("rack-3"));
    let again = serde_json::to_string(&placed).expect("it can be written");
    let pod = read(&again).expect("it is read again").pod(SocketAddr::from(([10, 0, 0, 7], 1)));
    assert_eq!((pod.role, pod.topology.as_deref()), (Role::Decode, Some("rack-3")));
}

#[test]
fn what_is_no_address_is_refused_with_its_reason() {
    for (json, reason) in [
        (r#""https://10.0.0.7:8000""#, "plain `http://` only"),
        (r#""http://10.0.0.7:8000/v1""#, "only host and port"),
        (r#""http://user@10.0.0.7:8000""#, "only host and port"),
        (r#""10.0.0.7:800000""#, "is not an address"),
        (r#"{"url":"10.0.0.7:1","rol":"prefill"}"#, "unknown field `rol`"),
        (r#"{"url":"10.0.0.7:1","role":"prefil"}"#, "unknown variant `prefil`"),
        ("7", "expected `http://host:port`"),
    ] {
        let error = read(json).expect_err(json).to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_says_nothing_is_not_waited_for_any_longer() {
    let error = answered("vllm", std::future::pending::<std::io::Result<()>>()).await;
    assert_eq!(error, Err("cannot resolve `vllm`: no answer in 5s".to_owned()));
    let refused = std::io::Error::other("no such host");
    let error = answered::<()>("vllm", std::future::ready(Err(refused))).await;
    assert_eq!(error, Err("cannot resolve `vllm`: no such host".to_owned()));
    assert_eq!(answered("vllm", std::future::ready(Ok(7))).await, Ok(7));
}

#[test]
fn an_address_named_twice_is_one_pod_and_a_name_with_two_families_counts_once() {
    let [v4, v6]: [SocketAddr; 2] =
        ["10.0.0.7:1", "[fd00::7]:1"].map(|text| text.parse().expect("it is an address"));
    assert_eq!(one_family([v6, v4, v4].into_iter()), [v4]);
    assert_eq!(one_family([v6].into_iter()), [v6]);

    let endpoints = [StaticEndpoint::from(v4).with_role(Role::Decode), StaticEndpoint::from(v4)];
    let pods = sightings(&endpoints, &Resolved::from([(0, vec![v4]), (1, vec![v4])]));
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].pod.role, Role::Decode);
    assert_eq!(&*pods[0].pod.uid, "static/10.0.0.7:1");
}
