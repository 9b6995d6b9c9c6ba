use kv_index::{ChainHasher, Slots};

use super::*;

const BLOCK: usize = 4;

fn milestones(text: &str) -> Milestones {
    let hasher = ChainHasher::with_seed(1);
    hasher.milestones(hasher.root(&["m"]), text.as_bytes(), BLOCK)
}

fn home(conversations: &Conversations, text: &str) -> Option<Slot> {
    conversations.home(&milestones(text), text.as_bytes(), BLOCK).map(|home| home.slot)
}

fn end(text: &str) -> End {
    End::of(&milestones(text), text.as_bytes(), BLOCK, 0).expect("longer than a block")
}

#[test]
fn a_repetition_and_a_continuation_are_at_home_and_a_branch_is_not() {
    for system in [8, 600, 2_000, 40_000].map(|blocks: usize| "abcd".repeat(blocks)) {
        let (conversations, slot) = (Conversations::default(), Slots::default().acquire());
        let first = format!("{system}first question.");
        assert_eq!(conversations.record(end(&first), slot), None);
        assert_eq!(conversations.record(end(&first), slot), Some(slot), "it is known");
        assert_eq!(home(&conversations, &first), Some(slot));
        let next = format!("{first} an answer and the second question.");
        assert_eq!(home(&conversations, &next), Some(slot), "{} blocks", system.len() / BLOCK);
        assert_eq!(home(&conversations, &format!("{system}other question.")), None);
        assert_eq!(home(&conversations, &system), None, "a part is no repetition");
        conversations.forget(end(&first), slot);
        assert_eq!(home(&conversations, &next), None, "an end that was continued is none");
    }
}

#[test]
fn the_latest_pod_is_the_home_and_another_pod_cannot_take_it_away() {
    let (conversations, mut slots) = (Conversations::default(), Slots::default());
    let (a, b) = (slots.acquire(), slots.acquire());
    let text = "a prompt of some blocks";
    conversations.record(end(text), a);
    conversations.record(end(text), b);
    conversations.forget(end(text), a);
    assert_eq!(home(&conversations, text), Some(b));
}

#[test]
fn a_second_attempt_that_comes_to_nothing_gives_the_home_back() {
    let (conversations, mut slots) = (Conversations::default(), Slots::default());
    let (first, second) = (slots.acquire(), slots.acquire());
    let text = "a prompt of some blocks";
    assert_eq!(conversations.record(end(text), first), None);
    let home_before = conversations.record(end(text), second);
    conversations.take_back(end(text), second, home_before);
    assert_eq!(home(&conversations, text), Some(first));
    conversations.take_back(end(text), second, Some(second));
    assert_eq!(home(&conversations, text), Some(first), "it is not the second's any more");
    conversations.take_back(end(text), first, None);
    assert_eq!(home(&conversations, text), None);
}

/// An item that counts how often it is hashed.
struct Counted<'a>(u8, &'a std::cell::Cell<usize>);

impl Hash for Counted<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.1.set(self.1.get() + 1);
        hasher.write_u8(self.0);
    }
}

#[test]
fn of_many_ends_behind_one_milestone_the_longest_is_found_by_reading_the_prompt_once() {
    let (conversations, slot) = (Conversations::default(), Slots::default().acquire());
    let (system, behind) = ("abcd".repeat(40_000), "x".repeat(100));
    for length in [7, 90, 40, 100, 13] {
        conversations.record(end(&format!("{system}{}", &behind[..length])), slot);
        conversations.record(end(&format!("{system}{}!", &behind[..length])), slot);
    }
    let (hashed, text) = (std::cell::Cell::new(0), format!("{system}{behind} and more"));
    let items: Vec<_> = text.bytes().map(|byte| Counted(byte, &hashed)).collect();
    let home = conversations.home(&milestones(&text), &items, BLOCK).expect("it is at home");
    assert_eq!(home.end, end(&format!("{system}{behind}")));
    let most = system.len() - home.blocks * BLOCK + 101;
    assert!(hashed.get() <= most, "{} of {most}", hashed.get());
}

#[test]
fn ends_behind_one_milestone_are_bounded() {
    let (conversations, slot) = (Conversations::default(), Slots::default().acquire());
    let system = "abcd".repeat(40_000);
    for number in 0..200 {
        conversations.record(end(&format!("{system}{number:08}")), slot);
    }
    assert_eq!(home(&conversations, &format!("{system}{:08}", 199)), Some(slot));
    assert_eq!(home(&conversations, &format!("{system}{:08}", 0)), None);
}
