//! The one loop: the next thing that happens, until nothing does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::fleet::Fleet;
use super::gateways::{Gateways, Gauges, Placed};
use super::pod::{Job, Output, Pod};
use super::rules::Rule;
use super::traffic::{Due, Traffic};

/// What came of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// The pod's position.
    pub pod: usize,
    /// When it was sent.
    pub sent: Duration,
    /// How long after that its first token was expected; zero: its rule expects nothing.
    pub expected: Duration,
    /// When its first token came.
    pub first: Duration,
    /// When its last token came.
    pub last: Duration,
    /// Prompt tokens that the pod found in its cache.
    pub cached_tokens: usize,
}

/// Traffic on its way through gateways to pods.
struct World<'a> {
    traffic: &'a Traffic,
    gateways: Gateways,
    pods: Vec<Pod>,
    /// Requests that will be sent, the next first.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Who waits for an answer before it is sent or before its wait begins.
    followers: HashMap<usize, Vec<usize>>,
    /// Requests that are sent in turn; the next last.
    turns: Vec<usize>,
    placed: Vec<Option<Placed>>,
    came: Vec<Came>,
    gauges: Gauges,
}

/// Plays the traffic; the same arguments give the same outcome, one entry per request.
pub fn play(traffic: &Traffic, fleet: &Fleet, rule: Rule, seed: u64) -> Vec<Came> {
    let mut world = World {
        traffic,
        gateways: Gateways::new(fleet, rule, seed),
        pods: (0..fleet.pods).map(|number| Pod::new(fleet.engine(number))).collect(),
        due: BinaryHeap::new(),
        followers: HashMap::new(),
        turns: Vec::new(),
        placed: traffic.requests.iter().map(|_| None).collect(),
        came: vec![Came::default(); traffic.requests.len()],
        gauges: Gauges::default(),
    };
    world.open();
    while world.next().is_some() {}
    world.came
}

// === impl World ===

impl World<'_> {
    fn open(&mut self) {
        for (number, request) in self.traffic.requests.iter().enumerate() {
            match request.due {
                Due::At(time) => self.due.push(Reverse((time, number))),
                Due::After(other, _) => self.followers.entry(other).or_default().push(number),
                Due::InTurn(_) => self.turns.push(number),
            }
        }
        self.turns.reverse();
        for _ in 0..self.traffic.at_once {
            self.take_turn(Duration::ZERO);
        }
    }

    /// Lets the next thing happen; none if nothing will.
    fn next(&mut self) -> Option<()> {
        let busy = self.pods.iter().enumerate();
        let step = busy.filter_map(|(number, pod)| Some((pod.due()?, number))).min();
        let sent = self.due.peek().map(|Reverse((time, _))| *time);
        // A step that ends when a request comes ends first.
        match (step, sent) {
            (Some((end, pod)), sent) if sent.is_none_or(|sent| end <= sent) => self.step(end, pod),
            _ => {
                let Reverse((now, number)) = self.due.pop()?;
                self.send(number, now)?;
            }
        }
        Some(())
    }

    fn send(&mut self, number: usize, now: Duration) -> Option<()> {
        let request = &self.traffic.requests[number];
        self.gauges.waiting.clear();
        self.gauges.waiting.extend(self.pods.iter().map(Pod::waiting));
        self.gauges.usage.clear();
        self.gauges.usage.extend(self.pods.iter().map(Pod::usage));
        let placed = self.gateways.place((number, request), now, &self.gauges)?;
        let job = Job {
            request: number,
            // A name that nobody else has, for the part of a block.
            blocks: request.blocks.iter().copied().chain([u32::MAX]).collect(),
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
        };
        (self.came[number].pod, self.came[number].sent) = (placed.pod, now);
        self.came[number].expected = placed.expected;
        self.pods[placed.pod].submit(job, now);
        self.tell(placed.pod);
        self.placed[number] = Some(placed);
        Some(())
    }

    fn step(&mut self, now: Duration, pod: usize) {
        let mut outputs = Vec::new();
        self.pods[pod].advance(&mut outputs);
        self.tell(pod);
        for output in outputs {
            match output {
                Output::First { request, cached_tokens } => {
                    self.came[request].first = now;
                    self.came[request].cached_tokens = cached_tokens;
                    if let Some(placed) = &mut self.placed[request] {
                        self.gateways.first_token(placed, cached_tokens, now);
                    }
                }
                Output::Last { request } => self.done(request, now),
            }
        }
    }

    fn tell(&mut self, pod: usize) {
        let events = self.pods[pod].take_events();
        self.gateways.hear(pod, events);
    }

    fn done(&mut self, number: usize, now: Duration) {
        self.came[number].last = now;
        if let Some(placed) = self.placed[number].take() {
            self.gateways.done(placed);
        }
        for follower in self.followers.remove(&number).unwrap_or_default() {
            let wait = match self.traffic.requests[follower].due {
                Due::After(_, wait) => wait,
                _ => Duration::ZERO,
            };
            self.due.push(Reverse((now + wait, follower)));
        }
        if matches!(self.traffic.requests[number].due, Due::InTurn(_)) {
            self.take_turn(now);
        }
    }

    /// Whoever is free takes the next turn, and waits with it for the answer that it needs.
    fn take_turn(&mut self, now: Duration) {
        let Some(number) = self.turns.pop() else { return };
        match self.traffic.requests[number].due {
            Due::InTurn(Some(first)) if self.came[first].last.is_zero() => {
                self.followers.entry(first).or_default().push(number);
            }
            _ => self.due.push(Reverse((now, number))),
        }
    }
}
