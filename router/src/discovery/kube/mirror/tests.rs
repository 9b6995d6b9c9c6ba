use serde_json::json;

use super::*;

fn pod(uid: &str, ip: &str) -> Pod {
    let pod = json!({
        "metadata": {"name": uid, "uid": uid},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_value(pod).expect("it is a pod")
}

fn mirror() -> Mirror {
    Mirror::new("http".to_owned(), vec![8000], "zone".to_owned())
}

fn uids(told: Option<Desired>) -> Option<Vec<String>> {
    Some(told?.pods.iter().map(|sighting| sighting.pod.uid.to_string()).collect())
}

#[test]
fn a_list_is_told_when_it_is_whole_and_replaces_what_was() {
    let mut mirror = mirror();
    for event in [Event::Init, Event::InitApply(pod("a", "10.0.0.1"))] {
        assert!(mirror.fold(event).is_none());
        assert!(!mirror.is_whole());
    }
    assert_eq!(uids(mirror.fold(Event::InitDone)), Some(vec!["a".to_owned()]));
    assert!(mirror.is_whole());

    mirror.fold(Event::Init);
    assert!(!mirror.is_whole(), "nothing is confirmed while a list is on its way");
    mirror.fold(Event::InitApply(pod("lost", "10.0.0.9")));
    mirror.fold(Event::Init);
    mirror.fold(Event::InitApply(pod("b", "10.0.0.2")));
    assert_eq!(uids(mirror.fold(Event::InitDone)), Some(vec!["b".to_owned()]));
}

#[test]
fn changes_tell_the_whole_set_and_pods_that_are_none_leave_it() {
    let mut mirror = mirror();
    mirror.fold(Event::Init);
    mirror.fold(Event::InitDone);
    mirror.fold(Event::Apply(pod("a", "10.0.0.1")));
    let both = uids(mirror.fold(Event::Apply(pod("b", "10.0.0.2"))));
    assert_eq!(both, Some(vec!["a".to_owned(), "b".to_owned()]));
    let without_ip = pod("a", "");
    assert_eq!(uids(mirror.fold(Event::Apply(without_ip))), Some(vec!["b".to_owned()]));
    let last = mirror.fold(Event::Delete(pod("b", "10.0.0.2"))).expect("it was known");
    assert!(last.pods.is_empty() && last.by_removal, "the server said so itself");
    assert!(mirror.fold(Event::Delete(pod("b", "10.0.0.2"))).is_none());
    let stranger = mirror.fold(Event::Apply(pod("c", ""))).expect("the set is told");
    assert!(stranger.pods.is_empty() && !stranger.by_removal, "nothing of ours went");
}

#[test]
fn a_pod_stands_where_the_configured_label_says() {
    let mut mirror = mirror();
    let mut labelled = pod("a", "10.0.0.1");
    let labels = [("zone".to_owned(), "z1".to_owned()), ("other".to_owned(), "z2".to_owned())];
    labelled.metadata.labels = Some(labels.into_iter().collect());
    for event in [Event::Init, Event::InitApply(labelled), Event::InitApply(pod("b", "10.0.0.2"))] {
        mirror.fold(event);
    }
    let told = mirror.fold(Event::InitDone).expect("the list is whole");
    let places: Vec<_> = told.pods.iter().map(|it| it.pod.topology.as_deref()).collect();
    assert_eq!(places, [Some("z1"), None]);
}
