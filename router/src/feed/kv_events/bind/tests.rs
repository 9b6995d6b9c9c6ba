use kv_index::Slots;

use super::*;
use crate::pod::Role;

type Registration = (Registered, Lane);

/// Registers pods `NAME@IP:PORT`.
fn lanes(pods: &[(&str, &str)]) -> (Arc<Lanes>, Vec<Registration>, Vec<Arc<KvStatus>>) {
    let (lanes, mut slots) = (Arc::<Lanes>::default(), Slots::default());
    let (mut registered, mut statuses) = (Vec::new(), Vec::new());
    for (name, addr) in pods {
        let pod = Pod {
            uid: format!("uid-{name}").into(),
            name: (*name).into(),
            addr: addr.parse().expect("an address"),
            role: Role::Both,
            topology: None,
            kv_ports: None,
            rank: name.rsplit_once('/').map(|(_, rank)| rank.parse().expect("a number")),
        };
        let status = Arc::default();
        registered.push(lanes.register(slots.acquire(), &pod, &status, 1));
        statuses.push(status);
    }
    (lanes, registered, statuses)
}

fn frame(len: usize) -> Frame {
    let batch = Ok(kv_index::wire::Batch::default());
    Frame { seq: 0, batch, len }
}

#[test]
fn a_publisher_is_the_pod_whose_address_it_has() {
    let pods = [("a", "10.0.0.1:8000"), ("b", "10.0.0.2:8000"), ("c", "10.0.0.2:8001")];
    let (lanes, _registered, statuses) = lanes(&pods);
    let found = |topic: &str, peer: &str| {
        let (status, _) = lanes.find(topic, peer.parse().expect("an IP"), 0)?;
        statuses.iter().position(|it| Arc::ptr_eq(it, &status))
    };
    assert_eq!(found("", "10.0.0.1"), Some(0));
    assert_eq!(found("kv@b@m", "10.0.0.1"), Some(0), "no pod speaks for another");
    assert_eq!(found("kv@c@m", "10.0.0.2"), Some(2));
    assert_eq!(found("kv@10.0.0.2:8001@m", "10.0.0.2"), Some(2));
    assert_eq!(found("kv-events", "10.0.0.2"), None, "it could be either");
    assert_eq!(found("kv@uid-b@m", "192.0.2.9"), Some(1), "behind address translation");
    assert_eq!(found("kv@10.0.0.1@m", "192.0.2.9"), Some(0));
    assert_eq!(found("kv@d@m", "192.0.2.9"), None);
}

#[test]
fn of_nobody_no_payload_is_looked_at() {
    let (lanes, _registered, _) = lanes(&[("a", "10.0.0.1:8000"), ("a/1", "10.0.0.1:8000")]);
    let knows = |topic: &str, peer: &str| lanes.knows(topic, peer.parse().expect("an IP"));
    assert!(knows("", "10.0.0.1"));
    assert!(knows("kv@a@m", "192.0.2.9"), "behind address translation");
    assert!(!knows("", "192.0.2.9"));
    assert!(!knows("kv@b@m", "192.0.2.9"));
}

#[test]
fn a_rank_that_a_pod_does_not_have_is_nobody() {
    let (lanes, _registered, _) = lanes(&[("a", "10.0.0.1:8000"), ("a/1", "10.0.0.1:8000")]);
    let ip = "10.0.0.1".parse().expect("an IP");
    assert!(lanes.find("", ip, 0).is_some());
    assert!(lanes.find("", ip, 1).is_some());
    assert!(lanes.find("kv@a@m", "192.0.2.9".parse().expect("an IP"), 1).is_some());
    assert!(lanes.find("", ip, 2).is_none());
}

#[test]
fn a_pod_that_has_gone_is_nobody() {
    let (lanes, registered, _) = lanes(&[("a", "10.0.0.1:8000")]);
    drop(registered);
    assert!(lanes.find("kv@a@m", "10.0.0.1".parse().expect("an IP"), 0).is_none());
}

#[test]
fn batches_and_bytes_that_wait_are_bounded() {
    let (lanes, mut registered, _) = lanes(&[("a", "10.0.0.1:8000")]);
    let ip = "10.0.0.1".parse().expect("an IP");
    let (_, way) = lanes.find("", ip, 0).expect("it is registered");
    assert!(!way.pass(frame(HELD_BYTES + 1)));
    assert!(way.pass(frame(HELD_BYTES)));
    assert!(!way.pass(frame(1)), "one batch may wait");
    registered.clear();
    let (_, room) = (way.clone(), way.room.available_permits());
    assert_eq!(room, HELD_BYTES, "what nobody will hear gives its bytes back");
}
