//! Every order in which one writer and its readers can see the words of a run, by loom.
//!
//! The protocol is the production file itself. Each model has a control beside it that breaks the
//! protocol in one place and must fail: a model that cannot fail proves nothing.

use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[path = "../src/exact/seqlock.rs"]
mod seqlock;

use sync::{AtomicU64, Ordering};

/// A run as the models see it: a version and two words.
struct Run {
    version: AtomicU64,
    words: [AtomicU64; 2],
}

impl Run {
    fn new(words: [u64; 2]) -> Self {
        Self { version: AtomicU64::new(0), words: words.map(AtomicU64::new) }
    }

    fn get(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, value: u64) {
        self.words[at].store(value, Ordering::Relaxed);
    }

    /// Both words, if they belong to one state.
    fn read(&self) -> Option<[u64; 2]> {
        let seen = seqlock::read(&self.version)?;
        let words = [self.get(0), self.get(1)];
        seqlock::is_whole(&self.version, seen).then_some(words)
    }
}

/// Two changes, each of both words to one value; `change` makes one. The reader has a thread of
/// its own, here and below, so that it may also start last.
fn changes(change: fn(&Run, u64), read: fn(&Run) -> Option<[u64; 2]>) {
    loom::model(move || {
        let run = Arc::new(Run::new([0, 0]));
        let other = Arc::clone(&run);
        let reader = thread::spawn(move || {
            if let Some([first, second]) = read(&other) {
                assert_eq!(first, second, "a torn read was taken for whole");
            }
        });
        (1..3).for_each(|value| change(&run, value));
        reader.join().expect("the reader does not panic");
    });
}

fn proper(run: &Run, value: u64) {
    let _writing = seqlock::write(&run.version);
    run.set(0, value);
    run.set(1, value);
}

#[test]
fn a_reader_sees_one_state_or_knows_better() {
    changes(proper, Run::read);
}

#[test]
#[should_panic(expected = "a torn read was taken for whole")]
fn control_a_reader_that_does_not_look_again_is_caught() {
    changes(proper, |run| {
        seqlock::read(&run.version)?;
        Some([run.get(0), run.get(1)])
    });
}

#[test]
#[should_panic(expected = "a torn read was taken for whole")]
fn control_a_writer_that_says_so_only_afterwards_is_caught() {
    changes(
        |run, value| {
            run.set(0, value);
            run.set(1, value);
            drop(seqlock::write(&run.version));
        },
        Run::read,
    );
}

/// The first run gives its piece of memory back, the second one fills it with keys of its own.
/// Word 0 of a run says which piece it has; a reader of the first run must never read the second
/// one's keys out of it.
fn reuse(writer: fn(&Run, &Run, &AtomicU64)) {
    loom::model(move || {
        let runs = Arc::new((Run::new([1, 0]), Run::new([0, 0]), AtomicU64::new(7)));
        let other = Arc::clone(&runs);
        let reader = thread::spawn(move || {
            let (first, _, piece) = &*other;
            let Some(seen) = seqlock::read(&first.version) else { return };
            let key = (first.get(0) == 1).then(|| piece.load(Ordering::Relaxed));
            if seqlock::is_whole(&first.version, seen) {
                assert!(key.is_none_or(|key| key == 7), "another run's key");
            }
        });
        writer(&runs.0, &runs.1, &runs.2);
        reader.join().expect("the reader does not panic");
    });
}

fn give(first: &Run) {
    let _writing = seqlock::write(&first.version);
    first.set(0, 0);
}

fn take(second: &Run, piece: &AtomicU64) {
    let _writing = seqlock::write(&second.version);
    piece.store(8, Ordering::Relaxed);
    second.set(0, 1);
}

#[test]
fn a_piece_is_reused_only_behind_its_former_owners_back() {
    reuse(|first, second, piece| {
        give(first);
        take(second, piece);
    });
}

#[test]
#[should_panic(expected = "another run's key")]
fn control_a_piece_reused_before_it_is_given_back_is_caught() {
    reuse(|first, second, piece| {
        take(second, piece);
        give(first);
    });
}

/// A split: what is behind the cut can be found before the run ends at the cut. Word 0 is the
/// run's length; the slot is the table's.
fn split(writer: fn(&Run, &AtomicU64)) {
    loom::model(move || {
        let shared = Arc::new((Run::new([2, 0]), AtomicU64::new(0)));
        let other = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let (run, slot) = &*other;
            if let Some([1, _]) = run.read() {
                assert_ne!(slot.load(Ordering::Acquire), 0, "blocks behind a cut were lost");
            }
        });
        writer(&shared.0, &shared.1);
        reader.join().expect("the reader does not panic");
    });
}

fn shorten(run: &Run) {
    let _writing = seqlock::write(&run.version);
    run.set(0, 1);
}

#[test]
fn a_split_loses_no_block_for_a_moment() {
    split(|run, slot| {
        slot.store(1, Ordering::Release);
        shorten(run);
    });
}

#[test]
#[should_panic(expected = "blocks behind a cut were lost")]
fn control_a_split_that_shortens_first_is_caught() {
    split(|run, slot| {
        shorten(run);
        slot.store(1, Ordering::Release);
    });
}
