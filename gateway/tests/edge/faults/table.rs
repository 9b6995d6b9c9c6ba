//! The table: one line a fault and a moment, one column a kind of pod and of answer.

use std::fmt;

use loadtest::simulator::{Break, Fault};

use super::world::Topology;

/// `whole`: the client has the answer of a sound pod, byte for byte, and nothing else. `error`: an
/// error event in a 200, and no `[DONE]`; `error+done`: with one, as vLLM writes it. `closed`: a stream
/// that ends without a word. `cut`: the connection ends in the middle. A number: that status, with an
/// error as JSON. `-`: it cannot happen: a prefill leg is an answer of one token.
///
/// `!` marks what is so today and is to become `whole`.
pub(super) const TABLE: &str = "
                               single                  prefill leg             decode leg
fault        at                stream       plain      stream       plain      stream       plain
refuse       head              whole        whole      whole        whole      whole        whole
drain        head              whole        whole      whole        whole      whole        whole
502          head              whole        whole      whole        whole      whole        whole
busy         head              whole        whole      whole        whole      whole        whole
reset        head              whole        whole      whole        whole      whole        whole
stall        head              whole        whole      whole        whole      whole        whole
down         head              whole        whole      whole        whole      whole        whole
freeze       head              whole        whole      whole        whole      whole        whole
death        head              whole        whole      whole        whole      whole        whole
pause        head              whole        whole      whole        whole      whole        whole
event        first             whole        whole      whole        whole      whole        whole
close        first             whole        whole      whole        whole      whole        whole
cut          first             whole        whole      whole        whole      whole        whole
stall        first             whole        whole      whole        whole      whole        whole
down         first             whole        whole      whole        whole      whole        whole
freeze       first             whole        whole      whole        whole      whole        whole
death        first             whole        whole      whole        whole      whole        whole
pause        first             whole        whole      whole        whole      whole        whole
event        middle            whole        whole      -            -          whole        whole
close        middle            whole        whole      -            -          whole        whole
cut          middle            whole        whole      -            -          whole        whole
stall        middle            whole        whole      -            -          whole        whole
down         middle            whole        whole      -            -          whole        whole
freeze       middle            whole        whole      -            -          whole        whole
death        middle            whole        whole      -            -          whole        whole
pause        middle            whole        whole      -            -          whole        whole
event        end               whole        whole      whole        whole      whole        whole
close        end               whole        whole      whole        whole      whole        whole
cut          end               whole        whole      whole        whole      whole        whole
stall        end               whole        whole      whole        whole      whole        whole
down         end               whole        whole      whole        whole      whole        whole
freeze       end               whole        whole      whole        whole      whole        whole
death        end               whole        whole      whole        whole      whole        whole
pause        end               whole        whole      whole        whole      whole        whole
";

/// A fault at a moment, and what comes of it.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) fault: Fault,
    pub(super) topology: Topology,
    pub(super) is_stream: bool,
    /// What the table says, without the mark.
    pub(super) outcome: String,
    name: String,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    pub(super) what: &'a str,
    pub(super) at: &'a str,
    outcomes: Vec<&'a str>,
}

/// The moments: before the head of the answer, before its first token, after three tokens, and
/// between the last one and the end of the answer.
const MOMENTS: [&str; 3] = ["first", "middle", "end"];

/// Faults that stand in the way of the head.
const BEFORE_HEAD: [(&str, Fault); 10] = [
    ("refuse", Fault::Refuse { for_ms: None }),
    ("drain", Fault::Status { status: 500, times: None }),
    ("502", Fault::Status { status: 502, times: None }),
    ("busy", Fault::Status { status: 503, times: None }),
    ("reset", Fault::Reset { after_bytes: 0 }),
    ("stall", Fault::Stall { after_bytes: 0 }),
    ("down", Fault::Down { for_ms: None }),
    ("freeze", Fault::Freeze { for_ms: None }),
    ("death", Fault::EngineDeath { for_ms: None }),
    ("pause", Fault::Pause),
];

/// Faults of an answer that has begun.
const AFTER_HEAD: [(&str, Break); 8] = [
    ("event", Break::ErrorEvent),
    ("close", Break::Close),
    ("cut", Break::Cut),
    ("stall", Break::Stall),
    ("down", Break::Down),
    ("freeze", Break::Freeze),
    ("death", Break::EngineDeath),
    ("pause", Break::Pause),
];

fn fault(what: &str, at: &str) -> Fault {
    let after_tokens = match at {
        "head" => return named(&BEFORE_HEAD, what),
        "first" => Some(0),
        "middle" => Some(3),
        _ => None,
    };
    Fault::Break { after_tokens, how: named(&AFTER_HEAD, what), times: Some(1) }
}

fn named<T: Copy>(all: &[(&str, T)], what: &str) -> T {
    let found = all.iter().find(|(name, _)| *name == what);
    found.unwrap_or_else(|| panic!("no fault is called {what}")).1
}

/// Fault and moment of every line that there has to be.
pub(super) fn known() -> Vec<(&'static str, &'static str)> {
    let before = BEFORE_HEAD.iter().map(|(what, _)| (*what, "head"));
    let after = MOMENTS.iter().flat_map(|at| AFTER_HEAD.iter().map(|(what, _)| (*what, *at)));
    let mut known: Vec<_> = before.chain(after).collect();
    known.sort_unstable();
    known
}

/// The lines below the two of the head.
pub(super) fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.trim_matches('\n').lines().skip(2).map(|line| {
        let mut words = line.split_whitespace();
        let (Some(what), Some(at)) = (words.next(), words.next()) else {
            panic!("a line without a fault and a moment: {line:?}")
        };
        Row { what, at, outcomes: words.collect() }
    })
}

/// Faults that nobody sees, whether the answer is a stream or not. What happens to a whole pod under
/// one answer cuts the others there at any moment and stands in the way of the next one's head: it
/// has to be survivable at all of them.
pub(crate) fn survivable() -> Vec<Fault> {
    let survives = |row: &Row<'_>| row.outcomes[..2].iter().all(|outcome| *outcome == "whole");
    let lost: Vec<_> = rows(TABLE).filter(|row| !survives(row)).map(|row| row.what).collect();
    let is_of_one = |row: &Row<'_>| match fault(row.what, row.at) {
        Fault::Break { how, .. } => {
            !matches!(how, Break::Down | Break::Freeze | Break::EngineDeath | Break::Pause)
        }
        _ => true,
    };
    let survives = |row: &Row<'_>| survives(row) && (is_of_one(row) || !lost.contains(&row.what));
    rows(TABLE).filter(survives).map(|row| fault(row.what, row.at)).collect()
}

/// The cells of one kind of pod.
pub(super) fn cells(table: &str, topology: Topology) -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in rows(table) {
        for (column, is_stream) in [(0, true), (1, false)] {
            let column = topology.column() + column;
            let said = row.outcomes.get(column).copied().unwrap_or_default();
            if said == "-" {
                continue;
            }
            let kind = if is_stream { "stream" } else { "plain" };
            cells.push(Cell {
                fault: fault(row.what, row.at),
                topology,
                is_stream,
                outcome: said.trim_end_matches('!').to_owned(),
                name: format!("{} at {}, {topology:?} {kind}, not {said}", row.what, row.at),
            });
        }
    }
    cells
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
