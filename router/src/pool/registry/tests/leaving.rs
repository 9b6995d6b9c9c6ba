//! Pods that terminate, and engines that stand still.

use super::*;

/// A pod that was told to terminate, and has so long.
fn leaving(uid: &str, grace: u64) -> Sighting {
    Sighting { serving: false, grace: Some(Duration::from_secs(grace)), ..sighting(uid, 8000) }
}

#[test]
fn a_pod_that_terminates_gets_nothing_new_and_the_end_of_its_grace_is_known() {
    let mut world = World::of(&["a", "b"]);
    let told_at = world.now;
    world.desired(vec![leaving("a", 30), sighting("b", 8000)]);
    assert_eq!(world.ready(), ["b"]);
    let leaves = (told_at + Duration::from_secs(30), told_at);
    assert_eq!(world.endpoint("a").record.leaves, Some(leaves));
    assert_eq!(world.endpoint("b").record.leaves, None);
    world.now += Duration::from_secs(10);
    world.desired(vec![leaving("a", 30), sighting("b", 8000)]);
    assert_eq!(world.endpoint("a").record.leaves, Some(leaves), "told again, not told anew");
    world.desired(vec![leaving("a", 1), sighting("b", 8000)]);
    let sooner = (world.now + Duration::from_secs(1), world.now);
    assert_eq!(world.endpoint("a").record.leaves, Some(sooner), "its grace was cut short");
}

/// Reads the counters of an engine that has two requests and computed so many tokens.
fn read(world: &mut World, uid: &str, computed_tokens: f64) -> Effects {
    let slot = world.slot(uid);
    let prompt_tokens = Some(computed_tokens);
    let hints =
        EngineHints { running: 2.0, computed_tokens, prompt_tokens, ..EngineHints::default() };
    world.apply(Event::Heard(News::Metrics { slot, hints }))
}

#[test]
fn engines_that_stand_still_are_out_until_they_make_a_token_and_not_all_of_them() {
    let mut world = World::of(&["a", "b"]);
    for uid in ["a", "b"] {
        read(&mut world, uid, 70.0);
    }
    world.now += Duration::from_millis(9_999);
    assert_eq!(read(&mut world, "a", 70.0).token_owed, []);
    world.now += Duration::from_millis(1);
    let a = world.slot("a");
    assert_eq!(read(&mut world, "a", 70.0).token_owed, [(a, true)]);
    assert_eq!(read(&mut world, "b", 70.0).token_owed, [], "half of the pods are out already");
    assert_eq!(world.ready(), ["b"], "the least bad");
    assert_eq!(world.endpoint("a").record.out, Some(Out::Standstill));
    world.now += Duration::from_secs(60);
    assert_eq!(world.probed("a", Ok(cards("m"))).token_owed, [], "health proves nothing");
    assert_eq!(world.ready(), ["b"]);
    let made = News::Probed { slot: a, result: Ok(cards("m")), generated: true, next: NEXT };
    assert_eq!(world.apply(Event::Heard(made)).token_owed, [(a, false)]);
    assert_eq!(world.ready(), ["a", "b"]);
}

#[test]
fn the_last_pod_that_decodes_is_not_taken_out_however_many_prefill() {
    let mut world = World::new();
    let pod = |uid: &str, role| {
        let mut sighting = sighting(uid, 8000);
        sighting.pod.role = role;
        sighting
    };
    let roles = [("p", Role::Prefill), ("q", Role::Prefill), ("d", Role::Decode)];
    world.desired(roles.map(|(uid, role)| pod(uid, role)).into());
    for (uid, _) in roles {
        world.probed(uid, Ok(cards("m")));
    }
    world.failed("d", 5);
    assert_eq!(world.ready(), ["d", "p", "q"], "nobody else could answer");
    world.failed("p", 5);
    assert_eq!(world.ready(), ["d", "q"]);
}

#[test]
fn an_engine_that_computes_is_well_however_long_its_requests_take() {
    let mut world = World::of(&["a", "b"]);
    for second in 0..60 {
        assert_eq!(read(&mut world, "a", f64::from(second)).token_owed, []);
        world.now += Duration::from_secs(1);
    }
    assert_eq!(world.ready(), ["a", "b"]);
}
