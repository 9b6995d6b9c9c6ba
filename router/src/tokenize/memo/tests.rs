//! The memo's bounds; that it changes no ids is shown in `tests/memo.rs`.

use super::*;

#[test]
fn the_bytes_stay_within_the_budget_and_the_oldest_go_first() {
    let memo = Memo::new(SHARDS * 4 * (PIECE_BYTES + 400));
    let (mut ids, piece) = (Vec::new(), [7; 100]);
    let key = |n: usize| (n * SHARDS) as PieceKey;
    for n in 0..5 {
        memo.keep(key(n), &piece);
        assert!(memo.find(key(0), &mut ids) || n == 0, "used last, kept longest");
    }
    assert_eq!(memo.report().bytes, 4 * (PIECE_BYTES + 400));
    assert!(memo.find(key(0), &mut ids) && memo.find(key(4), &mut ids));
    assert!(!memo.find(key(1), &mut ids), "the oldest is gone");
}

#[test]
fn a_piece_kept_twice_is_counted_once() {
    let memo = Memo::default();
    memo.keep(1, &[1, 2, 3]);
    memo.keep(1, &[1, 2, 3]);
    assert_eq!(memo.report().bytes, PIECE_BYTES + 12);
}

#[test]
fn without_a_budget_nothing_is_kept() {
    let memo = Memo::new(0);
    memo.keep(1, &[1]);
    assert!(!memo.find(1, &mut Vec::new()));
    assert_eq!(memo.report(), MemoReport::default());
}
