//! Which run continues which: what keeps a chain's recency together, and its tail from outliving
//! its head at the budget.

use super::{Info, NONE, Runs};
use crate::exact::ledger::Place;

impl Runs {
    /// The runs that continue this one.
    pub(in crate::exact) fn children(&self, run: u32) -> impl Iterator<Item = u32> {
        let first = self.info(run).first_child;
        std::iter::successors((first != NONE).then_some(first), |child| {
            let next = self.info(*child).next;
            (next != NONE).then_some(next)
        })
    }

    /// Hangs a run under the block that it continues.
    pub(in crate::exact) fn attach(&mut self, run: u32, after: Place) {
        self.orphans -= usize::from(self.info(run).is_orphan());
        self.detach(run);
        let next = self.info(after.run).first_child;
        let info = &mut self.info[run as usize];
        (info.parent, info.attach, info.next) = (after.run, after.offset, next);
        self.info[after.run as usize].first_child = run;
        if next != NONE {
            self.info[next as usize].previous = run;
        }
    }

    /// What continues the run's blocks from `from` on continues nothing from now on.
    pub(super) fn orphan(&mut self, run: u32, from: usize) {
        let behind = |child: &u32| self.info(*child).attach as usize >= from;
        let orphans: Vec<u32> = self.children(run).filter(behind).collect();
        for child in orphans {
            self.detach(child);
            self.orphans += usize::from(self.info(child).is_orphan());
        }
    }

    pub(super) fn detach(&mut self, run: u32) {
        let Info { parent, next, previous, .. } = *self.info(run);
        if parent == NONE {
            return;
        }
        if previous == NONE {
            self.info[parent as usize].first_child = next;
        } else {
            self.info[previous as usize].next = next;
        }
        if next != NONE {
            self.info[next as usize].previous = previous;
        }
        let info = &mut self.info[run as usize];
        (info.parent, info.next, info.previous) = (NONE, NONE, NONE);
    }
}
