//! The machine behind the table: one publisher's stream, one input at a time.

use super::{Arrival, Doubt, Fate, Input, Orders, Trust};
use crate::feed::kv_events::sequence::{Mark, Place, Sequence};

/// The state of one publisher's stream.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    sequence: Sequence,
    connected: bool,
    /// There is a history to ask for.
    replays: bool,
    /// The last attempt to ask for it failed.
    replay_failed: bool,
    /// The number that the last replay was asked for because it was missing.
    gap_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Approximate,
    CatchingUp(CatchUp),
    Exact,
    Uncertain(Doubt),
}

/// A replay that runs or will run once the stream is open.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CatchUp {
    why: Why,
    /// What will be doubted at its end; none: nothing.
    doubt: Option<Doubt>,
    /// The batch that must come first, if the process is still the one we know.
    anchor: Option<Mark>,
    /// It told something new.
    progressed: bool,
    /// All that is known comes from a history that is not told to its end.
    is_retelling: bool,
}

/// Why there is a replay; it decides what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nothing is known.
    Start,
    /// A batch is missing.
    Gap,
    /// The stream was broken: the process may be another.
    Reconnect,
    /// The stream is whole; we make sure.
    Check,
    /// What is known stays until the history answers.
    Retry,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn new(replays: bool) -> Self {
        Self {
            state: State::Approximate,
            sequence: Sequence::default(),
            connected: false,
            replays,
            replay_failed: false,
            gap_at: None,
        }
    }

    /// What can be said of the publisher now.
    pub(crate) fn trust(&self) -> Trust {
        match self.state {
            State::Approximate => Trust::Approximate,
            State::CatchingUp(CatchUp { is_retelling: true, .. }) => Trust::Retelling,
            State::CatchingUp(_) => Trust::CatchingUp,
            State::Exact => Trust::Exact,
            State::Uncertain(doubt) => Trust::Uncertain(doubt),
        }
    }

    /// The number that is due; none if nothing is known of the stream.
    pub(crate) fn next_seq(&self) -> Option<u64> {
        self.sequence.next()
    }

    /// Where the history is told may have changed with a new process.
    pub(crate) fn set_replays(&mut self, replays: bool) {
        self.replays = replays;
    }

    /// Takes one input in.
    pub(crate) fn step(&mut self, input: Input) -> Orders {
        match input {
            Input::Connected => self.connected(),
            Input::Disconnected => self.disconnected(),
            Input::Live(arrival) => self.live(arrival),
            Input::Replayed(arrival) => self.replayed(arrival),
            Input::ReplayEnded => self.replay_ended(),
            Input::ReplayFailed => self.replay_failed(),
            Input::Silent => self.silent(),
            Input::Idle => self.idle(),
            Input::Overpredicted => self.overpredicted(),
            Input::SelfCheckFailed => self.self_check_failed(),
            Input::Reconciled => {
                if matches!(self.state, State::Uncertain(_)) && self.connected {
                    self.state = State::Exact;
                }
                Orders::default()
            }
            Input::Retry => self.retry(),
        }
    }

    fn can_replay(&self) -> bool {
        self.replays && !self.replay_failed
    }

    fn doubt(&self) -> Option<Doubt> {
        match self.state {
            State::Uncertain(doubt) => Some(doubt),
            State::CatchingUp(catch_up) => catch_up.doubt,
            State::Approximate | State::Exact => None,
        }
    }

    fn connected(&mut self) -> Orders {
        self.connected = true;
        self.replay_failed = false;
        match self.state {
            State::Approximate if self.replays => self.ask(Why::Start, None),
            State::Approximate => Orders::default(),
            _ if self.replays => self.ask(Why::Reconnect, self.doubt()),
            _ => self.lose(),
        }
    }

    fn disconnected(&mut self) -> Orders {
        self.connected = false;
        if self.state != State::Approximate {
            let doubt = self.doubt();
            self.catch_up(Why::Reconnect, doubt);
        }
        Orders::default()
    }

    fn live(&mut self, arrival: Arrival) -> Orders {
        if matches!(self.state, State::CatchingUp(_)) {
            return Orders::batch(Fate::Hold);
        }
        match self.sequence.place(arrival.mark) {
            Place::Duplicate => Orders::batch(Fate::Ignore),
            Place::First => {
                let found = (!arrival.fresh_start()).then_some(Doubt::LateStart);
                self.settle(found);
                self.take(arrival)
            }
            Place::Next => {
                self.gap_at = None;
                if self.state == State::Uncertain(Doubt::Silent) {
                    self.state = State::Exact;
                }
                self.take(arrival)
            }
            Place::Ahead => self.ahead(arrival),
            Place::Backwards => {
                let orders = self.rebuild(None);
                if orders.replay_from.is_some() {
                    return Orders { batch: Fate::Hold, ..orders };
                }
                self.settle((!arrival.fresh_start()).then_some(Doubt::LateStart));
                self.take(arrival).dropping()
            }
        }
    }

    fn ahead(&mut self, arrival: Arrival) -> Orders {
        // What it does not tell of what came before it is told by the emptiness.
        if arrival.clears && arrival.readable {
            return self.take(arrival).dropping();
        }
        let tried = self.gap_at == self.sequence.next();
        if self.can_replay() && !tried {
            self.gap_at = self.sequence.next();
            return Orders { batch: Fate::Hold, ..self.ask(Why::Gap, self.doubt()) };
        }
        self.gap_at = None;
        self.state = State::Uncertain(Doubt::Gap);
        self.take(arrival).dropping()
    }

    fn replayed(&mut self, arrival: Arrival) -> Orders {
        let State::CatchingUp(mut catch_up) = self.state else { return Orders::default() };
        let mut orders = Orders::default();
        if catch_up.why == Why::Retry && !catch_up.progressed {
            self.sequence = Sequence::default();
            orders.drop_blocks = true;
        }
        if let Some(anchor) = catch_up.anchor.take() {
            if arrival.mark == anchor {
                self.state = State::CatchingUp(catch_up);
                return Orders::default();
            }
            if arrival.mark.seq <= anchor.seq {
                return self.rebuild(None);
            }
            // It lies too far back to prove anything.
            orders.drop_blocks = true;
            catch_up.doubt = Some(Doubt::Gap);
        } else {
            match self.sequence.place(arrival.mark) {
                Place::Duplicate => return Orders::default(),
                Place::Backwards => return self.rebuild(None),
                Place::First if arrival.mark.seq == 0 => catch_up.doubt = None,
                Place::First => {
                    // It explains a silence, and is one more.
                    let other = catch_up.doubt.filter(|doubt| *doubt != Doubt::Silent);
                    catch_up.doubt = Some(other.unwrap_or(Doubt::LateStart));
                }
                Place::Next => {}
                Place::Ahead => {
                    orders.drop_blocks = true;
                    catch_up.doubt = Some(Doubt::Gap);
                }
            }
        }
        catch_up.progressed = true;
        catch_up.is_retelling |= orders.drop_blocks;
        self.state = State::CatchingUp(catch_up);
        let taken = self.take(arrival);
        Orders { drop_blocks: orders.drop_blocks || taken.drop_blocks, ..taken }
    }

    fn replay_ended(&mut self) -> Orders {
        let State::CatchingUp(catch_up) = self.state else { return Orders::default() };
        if catch_up.anchor.is_some() {
            return self.rebuild(None);
        }
        self.sequence.begin();
        let heard = catch_up.progressed || catch_up.why == Why::Reconnect;
        let explained = catch_up.doubt == Some(Doubt::Silent) && heard;
        self.settle(catch_up.doubt.filter(|_| !explained));
        Orders::default()
    }

    fn replay_failed(&mut self) -> Orders {
        self.replay_failed = true;
        let State::CatchingUp(catch_up) = self.state else { return Orders::default() };
        match catch_up.why {
            Why::Start => {
                self.settle(Some(catch_up.doubt.unwrap_or(Doubt::LateStart)));
                Orders::default()
            }
            // The batches that are held will find the gap still there.
            Why::Gap | Why::Check | Why::Retry => {
                self.settle(catch_up.doubt);
                Orders::default()
            }
            Why::Reconnect => self.lose(),
        }
    }

    fn silent(&mut self) -> Orders {
        if self.state != State::Exact {
            return Orders::default();
        }
        if self.can_replay() {
            return self.ask(Why::Check, Some(Doubt::Silent));
        }
        self.state = State::Uncertain(Doubt::Silent);
        Orders::default()
    }

    /// Whatever was lost on its way here is told again. A replay that runs tells it anyway.
    fn overpredicted(&mut self) -> Orders {
        match self.state {
            State::Exact | State::Uncertain(_) if self.connected && self.can_replay() => {
                self.ask(Why::Check, self.doubt())
            }
            _ => Orders::default(),
        }
    }

    /// While a history is told, answers say nothing of it: to begin it anew with each of them would
    /// never end it.
    fn self_check_failed(&mut self) -> Orders {
        match self.state {
            State::Exact | State::Uncertain(_) => self.rebuild(Some(Doubt::SelfCheck)),
            State::Approximate | State::CatchingUp(_) => Orders::default(),
        }
    }

    fn idle(&mut self) -> Orders {
        match self.state {
            State::Exact if self.can_replay() => self.ask(Why::Check, None),
            State::CatchingUp(catch_up) if !self.connected => {
                // What was doubted before is not explained by whatever ends the silence.
                self.settle(Some(catch_up.doubt.unwrap_or(Doubt::Silent)));
                Orders::default()
            }
            _ => Orders::default(),
        }
    }

    fn retry(&mut self) -> Orders {
        match self.state {
            State::Uncertain(doubt) if self.connected && self.replays && self.replay_failed => {
                self.replay_failed = false;
                if doubt == Doubt::Silent {
                    return self.ask(Why::Check, Some(doubt));
                }
                self.catch_up(Why::Retry, Some(doubt));
                Orders { replay_from: Some(0), ..Orders::default() }
            }
            // A check that failed has shown nothing: the next one may be asked for again.
            State::Exact => {
                self.replay_failed = false;
                Orders::default()
            }
            _ => Orders::default(),
        }
    }

    /// Takes a batch's events in, or gives it up if it cannot be read.
    fn take(&mut self, arrival: Arrival) -> Orders {
        self.sequence.advance(arrival.mark);
        if !arrival.readable {
            self.set_doubt(Some(Doubt::Gap));
            return Orders::default().dropping();
        }
        if arrival.clears {
            self.set_doubt(None);
        }
        Orders::batch(Fate::Apply)
    }

    /// What is doubted now, or at the end of the replay that runs.
    fn set_doubt(&mut self, doubt: Option<Doubt>) {
        match &mut self.state {
            State::CatchingUp(catch_up) => catch_up.doubt = doubt,
            _ => self.settle(doubt),
        }
    }

    fn settle(&mut self, doubt: Option<Doubt>) {
        self.state = doubt.map_or(State::Exact, State::Uncertain);
    }

    fn catch_up(&mut self, why: Why, doubt: Option<Doubt>) {
        let anchor = if why == Why::Retry { None } else { self.sequence.last() };
        let is_retelling = why == Why::Start;
        let catch_up = CatchUp { why, doubt, anchor, progressed: false, is_retelling };
        self.state = State::CatchingUp(catch_up);
    }

    /// Asks for the history from the last known batch on, or all of it.
    fn ask(&mut self, why: Why, doubt: Option<Doubt>) -> Orders {
        self.catch_up(why, doubt);
        let from = self.sequence.last().map_or(self.sequence.next(), |last| Some(last.seq));
        Orders { replay_from: Some(from.unwrap_or(0)), ..Orders::default() }
    }

    /// Forgets everything and asks for the whole history, if it can be had.
    fn rebuild(&mut self, doubt: Option<Doubt>) -> Orders {
        self.sequence = Sequence::default();
        self.gap_at = None;
        if !self.connected {
            self.catch_up(Why::Start, doubt);
            return Orders::default().dropping();
        }
        if self.can_replay() {
            return self.ask(Why::Start, doubt).dropping();
        }
        self.settle(Some(doubt.unwrap_or(Doubt::LateStart)));
        Orders::default().dropping()
    }

    /// The stream was broken and nobody can tell what happened meanwhile.
    fn lose(&mut self) -> Orders {
        self.sequence = Sequence::default();
        self.gap_at = None;
        self.state = State::Uncertain(Doubt::Gap);
        Orders::default().dropping()
    }
}
