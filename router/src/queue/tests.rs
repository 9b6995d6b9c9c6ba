use super::*;

use futures_util::FutureExt;

fn model(name: &str) -> Query {
    Query { model: Some(name.into()), ..Query::any() }
}

fn at(pods: &str) -> Query {
    Query { subset: Some(Subset::of(pods)), ..model("m") }
}

/// A client with an address of its own.
fn client(address: u64) -> Client {
    Client { address, key: 0 }
}

fn is_next(ticket: &Ticket) -> bool {
    ticket.turn().now_or_never().is_some()
}

#[test]
fn a_full_room_takes_nobody_and_who_leaves_makes_room() {
    let room = Arc::new(Room::new(2));
    let a = room.join(&model("m"), client(1)).expect("it is empty");
    let b = room.join(&model("n"), client(1)).expect("it has one more place");
    assert!(room.join(&model("m"), client(2)).is_none());
    assert_eq!(room.waiting(), 2, "who was turned away is not counted");
    drop(a);
    let c = room.join(&model("m"), client(2)).expect("a place was left");
    b.served();
    drop(c);
    assert_eq!(room.waiting(), 0);
    assert!(room.lines.lock().by_pods.is_empty(), "no line is kept for nobody");
    assert!(Arc::new(Room::new(0)).join(&model("m"), client(1)).is_none());
}

#[test]
fn models_do_not_wait_for_each_other() {
    let room = Arc::new(Room::new(9));
    let a = room.join(&model("m"), client(1)).expect("room");
    assert!(room.has_line(&model("m")) && !room.has_line(&model("n")));
    let b = room.join(&model("n"), client(1)).expect("room");
    assert!(is_next(&a) && is_next(&b));
}

#[test]
fn who_may_go_to_some_pods_only_holds_up_nobody_else() {
    let room = Arc::new(Room::new(9));
    let some = room.join(&at("10.0.0.7:8000"), client(1)).expect("room");
    assert!(!room.has_line(&model("m")) && !room.has_line(&at("10.0.0.8")));
    assert!(room.has_line(&at("10.0.0.7:8000")));
    let (any, behind) =
        (room.join(&model("m"), client(2)), room.join(&at("10.0.0.7:8000"), client(2)));
    let (any, behind) = (any.expect("room"), behind.expect("room"));
    assert_eq!([&some, &any, &behind].map(is_next), [true, true, false]);
    drop((some, any));
    assert!(is_next(&behind));
    drop(behind);
    assert!(room.lines.lock().by_pods.is_empty());
}

#[tokio::test]
async fn the_turn_goes_on_when_somebody_leaves_served_or_not() {
    let room = Arc::new(Room::new(9));
    let join = |number| room.join(&model("m"), client(number)).expect("room");
    let (a, b, c, d) = (join(1), join(1), join(2), join(3));
    assert_eq!([&a, &b, &c, &d].map(is_next), [true, false, false, false]);
    let waits = tokio::spawn(async move {
        c.turn().await;
        c
    });
    tokio::task::yield_now().await;
    a.served();
    let c = waits.await.expect("it is woken");
    assert!(!is_next(&b) && !is_next(&d), "client 1 had its turn");
    drop(c);
    assert!(is_next(&d), "who gives up costs nothing");
    drop(d);
    assert!(is_next(&b));
}

#[test]
fn a_pods_places_are_set_or_learned_or_without_bound() {
    let settings = QueueSettings::default();
    assert_eq!(settings.places(None), None, "its engine never had a queue");
    assert_eq!(settings.places(Some(256)), Some(320));
    assert_eq!(settings.places(Some(1)), Some(2), "one is always ready");
    let set = QueueSettings { per_pod: 7, ..settings };
    assert_eq!(set.places(None), Some(7));
    let off = QueueSettings { waiting: 0, ..set };
    assert_eq!(off.places(Some(3)), None);
}
