use prometheus::{Registry, TextEncoder};

use super::*;
use crate::telemetry::Metrics;

fn account() -> (Account, Registry) {
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry).expect("no name twice"));
    let mut account = Account::new(Arc::new(Books { metrics, access_log: None, traces: None }));
    let (head, ()) = http::Request::new(()).into_parts();
    account.open(&head, None);
    (account, registry)
}

/// Requests that ended with this status, and errors with this label.
fn told(registry: &Registry, code: &str, error: &str) -> [usize; 2] {
    let page = TextEncoder::new().encode_to_string(&registry.gather()).expect("it is text");
    let sample = |family: &str, label: String| {
        let of = |line: &&str| line.starts_with(family) && line.contains(&label);
        page.lines().filter(of).filter(|line| line.ends_with(" 1")).count()
    };
    [
        sample("hearth_requests_total{", format!("code=\"{code}\"")),
        sample("hearth_errors_total{", format!("reason=\"{error}\"")),
    ]
}

#[test]
fn a_request_is_told_of_once_whatever_ends_it() {
    let (mut answered, registry) = account();
    answered.close(Some(StatusCode::OK), 0);
    drop(answered);
    assert_eq!(told(&registry, "200", "internal"), [1, 0]);
    assert_eq!(told(&registry, "499", "internal"), [0, 0], "and not again");

    let (dropped, registry) = account();
    drop(dropped);
    assert_eq!(told(&registry, "499", "internal"), [1, 0]);

    let (carried, registry) = account();
    let task = move || {
        let _carried = carried;
        panic!("a fault of ours");
    };
    assert!(thread::spawn(task).join().is_err());
    assert_eq!(told(&registry, "500", "internal"), [1, 1]);
}

#[test]
fn a_pods_service_time_begins_when_its_attempt_was_sent() {
    let (mut account, _registry) = account();
    let at = |s| account.started + Duration::from_secs(s);
    let (sent, head) = (at(5), at(7));
    assert_eq!(account.service_time(), None);
    (account.attempt.sent, account.attempt.head) = (Some(sent), Some(head));
    assert_eq!(account.service_time(), Some(Duration::from_secs(2)));
}
