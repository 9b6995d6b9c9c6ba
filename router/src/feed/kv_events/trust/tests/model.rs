//! The machine against a publisher that loses, forgets, restarts and breaks off at random: what it
//! lets the sink believe is never more than is so, and `exact` means equal.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Something that happens to the pod or to us.
#[derive(Clone, Debug)]
enum Happening {
    /// The engine stores this block, or removes it if it holds it.
    Toggle(u8),
    /// The same, in a batch that no subscriber gets.
    Unheard(u8),
    Clear,
    /// The engine's process is replaced.
    Restart,
    /// The publisher keeps only its last batches.
    Forget(usize),
    Disconnect,
    Connect,
    /// What waits on the stream is heard.
    Hear,
    /// What a replay still tells is told.
    Tell,
    FailReplay,
    Idle,
    Silent,
    Doubted,
    Overpredicted,
    Retry,
}

#[derive(Clone, Debug)]
struct Batch {
    arrival: Arrival,
    change: Change,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Store(u8),
    Remove(u8),
    Clear,
}

/// The publisher, the wire, and us.
struct World {
    truth: BTreeSet<u8>,
    history: Vec<Batch>,
    next_seq: u64,
    clock_s: f64,
    connected: bool,
    stream: Vec<Batch>,
    replay: Option<Vec<Batch>>,
    held: Vec<Batch>,
    machine: Machine,
    believed: BTreeSet<u8>,
}

impl World {
    fn new(replays: bool) -> Self {
        Self {
            truth: BTreeSet::new(),
            history: Vec::new(),
            next_seq: 0,
            clock_s: 0.0,
            connected: false,
            stream: Vec::new(),
            replay: None,
            held: Vec::new(),
            machine: Machine::new(replays),
            believed: BTreeSet::new(),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Toggle(block) => self.toggle(*block, true),
            Happening::Unheard(block) => self.toggle(*block, false),
            Happening::Clear => self.publish(Change::Clear, true),
            Happening::Restart => {
                self.disconnect();
                self.truth.clear();
                self.history.clear();
                self.next_seq = 0;
            }
            Happening::Forget(keep) => {
                let gone = self.history.len().saturating_sub(*keep);
                self.history.drain(..gone);
            }
            Happening::Disconnect => self.disconnect(),
            Happening::Connect => {
                if !self.connected {
                    self.connected = true;
                    self.input(Input::Connected, None);
                }
            }
            Happening::Hear => {
                for batch in std::mem::take(&mut self.stream) {
                    self.input(Input::Live(batch.arrival), Some(batch));
                }
            }
            Happening::Tell => self.tell(),
            Happening::FailReplay => {
                if self.replay.take().is_some() {
                    self.input(Input::ReplayFailed, None);
                    self.resubmit();
                }
            }
            Happening::Idle => self.input(Input::Idle, None),
            Happening::Silent if self.connected => self.input(Input::Silent, None),
            Happening::Doubted if self.connected => self.input(Input::SelfCheckFailed, None),
            Happening::Overpredicted if self.connected => self.input(Input::Overpredicted, None),
            Happening::Silent | Happening::Doubted | Happening::Overpredicted => {}
            Happening::Retry => self.input(Input::Retry, None),
        }
    }

    fn toggle(&mut self, block: u8, heard: bool) {
        let holds = self.truth.contains(&block);
        self.publish(if holds { Change::Remove(block) } else { Change::Store(block) }, heard);
    }

    fn publish(&mut self, change: Change, heard: bool) {
        apply(&mut self.truth, change);
        self.clock_s += 1.0;
        let mark = Mark { seq: self.next_seq, published_at_s: self.clock_s };
        self.next_seq += 1;
        let clears = matches!(change, Change::Clear);
        let batch = Batch { arrival: Arrival { mark, clears, readable: true }, change };
        self.history.push(batch.clone());
        if heard && self.connected {
            self.stream.push(batch);
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.stream.clear();
            self.replay = None;
            self.held.clear();
            self.input(Input::Disconnected, None);
        }
    }

    fn tell(&mut self) {
        let Some(mut batches) = self.replay.take() else { return };
        while !batches.is_empty() {
            let batch = batches.remove(0);
            self.input(Input::Replayed(batch.arrival), Some(batch));
            if self.replay.is_some() {
                // It asked for another instead.
                return;
            }
        }
        self.input(Input::ReplayEnded, None);
        self.resubmit();
    }

    fn resubmit(&mut self) {
        if self.replay.is_none() {
            for batch in std::mem::take(&mut self.held) {
                self.input(Input::Live(batch.arrival), Some(batch));
            }
        }
    }

    fn input(&mut self, input: Input, batch: Option<Batch>) {
        let orders = self.machine.step(input);
        if orders.drop_blocks {
            self.believed.clear();
        }
        match (orders.batch, batch) {
            (Fate::Apply, Some(batch)) => apply(&mut self.believed, batch.change),
            (Fate::Hold, Some(batch)) => self.held.push(batch),
            _ => {}
        }
        if let Some(from) = orders.replay_from {
            assert!(self.connected, "a history is asked for only over an open stream");
            let told = self.history.iter().filter(|batch| batch.arrival.mark.seq >= from);
            self.replay = Some(told.cloned().collect());
        }
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.happen(&Happening::Tell);
            self.happen(&Happening::Hear);
        }
    }

    /// What was published and neither heard nor on its way: a batch that no subscriber got, with
    /// none after it to show the gap.
    fn misses_the_end(&self) -> bool {
        self.machine.next_seq() != Some(self.next_seq)
    }
}

fn apply(held: &mut BTreeSet<u8>, change: Change) {
    match change {
        Change::Store(block) => drop(held.insert(block)),
        Change::Remove(block) => drop(held.remove(&block)),
        Change::Clear => held.clear(),
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0u8..6).prop_map(Happening::Toggle),
        3 => (0u8..6).prop_map(Happening::Unheard),
        1 => Just(Happening::Clear),
        1 => Just(Happening::Restart),
        1 => (0usize..4).prop_map(Happening::Forget),
        1 => Just(Happening::Disconnect),
        3 => Just(Happening::Connect),
        6 => Just(Happening::Hear),
        4 => Just(Happening::Tell),
        1 => Just(Happening::FailReplay),
        1 => Just(Happening::Idle),
        1 => Just(Happening::Silent),
        1 => Just(Happening::Doubted),
        1 => Just(Happening::Overpredicted),
        1 => Just(Happening::Retry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_believed_is_so_and_exact_means_equal(
        replays: bool,
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(replays);
        for happening in &happenings {
            world.happen(happening);
        }
        world.happen(&Happening::Connect);
        world.settle();
        // The next word of the publisher shows what was lost before it.
        world.publish(Change::Store(99), true);
        world.settle();
        prop_assert!(!world.misses_the_end() || world.machine.trust() == Trust::Approximate);
        prop_assert!(
            world.believed.is_subset(&world.truth),
            "believed {:?} of {:?}: {:?}", world.believed, world.truth, world.machine
        );
        if world.machine.trust() == Trust::Exact {
            prop_assert_eq!(&world.believed, &world.truth, "{:?}", world.machine);
        }
    }
}
