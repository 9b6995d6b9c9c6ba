use super::*;

fn tally(amounts: &[(&str, u64)]) -> Tally {
    let mut tally = Tally::default();
    for (name, amount) in amounts {
        tally.add(name, *amount);
    }
    tally
}

#[test]
fn the_top_share_is_of_all_amounts() {
    let tally = tally(&[("b", 10), ("a", 15), ("b", 15)]);
    assert_eq!(tally.top(), Some(("b", 25)));
    assert_eq!((tally.total(), tally.top_percent()), (40, 62.5));
}

#[test]
fn an_idle_member_counts_in_the_mean() {
    let two = tally(&[("a", 180), ("b", 220)]);
    assert_eq!(two.load(0), Load { max: 220, mean: 200.0 });
    assert!((two.load(4).max_over_mean() - 2.2).abs() < 1e-9);
}

#[test]
fn nothing_is_neither_sticky_nor_uneven() {
    assert!(Tally::default().top_percent() < 1e-9);
    assert!((Tally::default().load(3).max_over_mean() - 1.0).abs() < 1e-9);
}
