//! Data-parallel ranks: one address, several pods.

use super::*;

fn ranks(world: &World) -> Vec<(String, Option<u16>)> {
    let pods = world.registry.pods.values().map(|known| &known.endpoint.pod);
    pods.map(|pod| (pod.uid.to_string(), pod.rank)).collect()
}

fn says(world: &mut World, uid: &str, ranks: u16) -> Effects {
    let slot = world.slot(uid);
    world.apply(Event::Heard(News::Ranks { slot, ranks }))
}

fn owned(pods: &[(&str, Option<u16>)]) -> Vec<(String, Option<u16>)> {
    pods.iter().map(|(uid, rank)| ((*uid).to_owned(), *rank)).collect()
}

#[test]
fn the_other_ranks_are_pods_and_go_with_the_first() {
    let mut world = World::of(&["a", "b"]);
    let effects = says(&mut world, "a", 3);
    assert_eq!((effects.added.len(), effects.removed.len()), (2, 0), "the first stays what it was");
    let all = owned(&[("a", Some(0)), ("b", None), ("a/1", Some(1)), ("a/2", Some(2))]);
    assert_eq!(ranks(&world), all);
    assert!(world.endpoint("a/1").pod.addr == world.endpoint("a").pod.addr);
    // Discovery knows nothing of ranks.
    let same = world.desired(vec![sighting("a", 8000), sighting("b", 8000)]);
    assert_eq!((same.added.len(), same.removed.len()), (0, 0));
    let gone = world.desired(vec![sighting("b", 8000)]);
    assert_eq!(gone.removed.len(), 3);
    // Whoever comes back under the name is asked anew.
    world.desired(vec![sighting("a", 8000), sighting("b", 8000)]);
    assert_eq!(ranks(&world).last(), owned(&[("a", None)]).first());
}

#[test]
fn a_pod_that_only_changed_keeps_its_ranks() {
    let mut world = World::of(&["a"]);
    says(&mut world, "a", 2);
    let edited = || {
        let Sighting { pod, serving, grace } = sighting("a", 8000);
        vec![Sighting { pod: Pod { role: Role::Decode, ..pod }, serving, grace }]
    };
    let changed = world.desired(edited());
    assert_eq!((changed.added.len(), changed.removed.len()), (2, 2));
    let same = world.desired(edited());
    assert_eq!((same.added.len(), same.removed.len()), (0, 0), "nothing has changed since");
    assert_eq!(ranks(&world), owned(&[("a", Some(0)), ("a/1", Some(1))]));
}

#[test]
fn who_is_alone_or_is_known_is_not_spread() {
    let mut world = World::of(&["a"]);
    says(&mut world, "a", 2);
    assert!(says(&mut world, "a", 2).added.is_empty());
    assert!(says(&mut world, "a/1", 2).added.is_empty());
    assert_eq!(ranks(&world), owned(&[("a", Some(0)), ("a/1", Some(1))]));
}

#[test]
fn a_rank_terminates_and_serves_as_its_pod_does() {
    let mut world = World::of(&["a"]);
    says(&mut world, "a", 2);
    world.probed("a/1", Ok(cards("m")));
    assert_eq!(world.endpoint("a/1").health, Health::Ready);
    world.desired(vec![Sighting { serving: false, ..sighting("a", 8000) }]);
    assert_eq!(world.endpoint("a/1").health, Health::Unproven);
}
