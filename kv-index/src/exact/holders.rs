//! Who holds how much of a run: the writer's copy, read, changed and written back as a whole.

use super::arena::Words;
use super::run::{Header, INLINE_WORDS, Layout, MEDIA, Partial};
use super::sync::Ordering;

/// The holders of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    width: usize,
    media: usize,
    full: Vec<u64>,
    pub(super) partials: Vec<Partial>,
}

// === impl Holders ===

impl Holders {
    /// Nobody.
    pub(super) fn clear(&mut self) {
        self.width = 0;
        self.media = 1;
        self.full.clear();
        self.partials.clear();
    }

    /// Reads what the run says; the writer's lock is held.
    pub(super) fn load(&mut self, header: Header<'_>, words: &Words) {
        let layout = header.layout();
        self.clear();
        self.width = layout.width;
        self.media = layout.media.max(1);
        let stored = header.holders(layout, words).expect("a layout names words that exist");
        let (full, partials) = stored.split_at(layout.width * layout.media);
        self.full.extend(full.iter().map(|word| word.load(Ordering::Relaxed)));
        let partials = partials.iter().map(|word| Partial::unpack(word.load(Ordering::Relaxed)));
        self.partials.extend(partials);
    }

    /// Writes it where `layout` says; a change of the run is under way.
    pub(super) fn store(&self, header: Header<'_>, words: &Words, at: u32) {
        let layout = Layout { at, ..self.layout() };
        header.set_layout(layout);
        let stored = header.holders(layout, words).expect("the layout was given enough words");
        let wanted = self.full.iter().copied().chain(self.partials.iter().map(|p| p.pack()));
        for (word, value) in stored.iter().zip(wanted) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Words needed outside the header.
    pub(super) fn outside(&self) -> Option<usize> {
        let count = self.full.len() + self.partials.len();
        (count > INLINE_WORDS).then_some(count)
    }

    /// How many of the run's `len` blocks the pod holds.
    pub(super) fn get(&self, slot: usize, medium: usize, len: usize) -> usize {
        if self.is_full(slot, medium) {
            return len;
        }
        let is_it = |partial: &&Partial| partial.slot == slot && partial.medium == medium;
        self.partials.iter().find(is_it).map_or(0, |partial| partial.len)
    }

    /// From now on the pod holds the first `held` of the run's `len` blocks.
    pub(super) fn set(&mut self, slot: usize, medium: usize, held: usize, len: usize) {
        if held == len && held > 0 {
            self.grow(slot, medium);
        }
        if slot / 64 < self.width && medium < self.media {
            let word = &mut self.full[medium * self.width + slot / 64];
            let bit = 1 << (slot % 64);
            *word = if held == len && held > 0 { *word | bit } else { *word & !bit };
        }
        self.partials.retain(|partial| partial.slot != slot || partial.medium != medium);
        if held > 0 && held < len {
            if medium > 0 {
                self.grow(slot, medium);
            }
            self.partials.push(Partial { slot, medium, len: held });
        }
    }

    /// The most blocks that anyone holds of the run's `len`.
    pub(super) fn longest(&self, len: usize) -> usize {
        if self.full.iter().any(|word| *word != 0) {
            return len;
        }
        self.partials.iter().map(|partial| partial.len).max().unwrap_or(0)
    }

    /// The run's length changes from `old` to `new`: who held all of it holds `old` of it, who now
    /// holds all of it is noted as such.
    pub(super) fn resize(&mut self, old: usize, new: usize) {
        if new > old {
            let full: Vec<_> = self.full_holders().collect();
            self.full.fill(0);
            let rest = full.into_iter().map(|(slot, medium)| Partial { slot, medium, len: old });
            self.partials.extend(rest);
        } else {
            let (whole, partials) = self.partials.iter().partition(|partial| partial.len >= new);
            self.partials = partials;
            let whole: Vec<Partial> = whole;
            for partial in whole {
                self.set(partial.slot, partial.medium, new, new);
            }
        }
    }

    /// Every pod and medium with a hold, and how many of `len` blocks it holds.
    pub(super) fn all(&self, len: usize) -> impl Iterator<Item = Partial> {
        let full = self.full_holders().map(move |(slot, medium)| Partial { slot, medium, len });
        full.chain(self.partials.iter().copied())
    }

    /// How many hold all of it.
    pub(super) fn full_count(&self) -> usize {
        self.full.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn full_holders(&self) -> impl Iterator<Item = (usize, usize)> {
        self.full.iter().enumerate().flat_map(|(index, word)| {
            let (medium, base) = (index / self.width, index % self.width * 64);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| (base + bit, medium))
        })
    }

    fn is_full(&self, slot: usize, medium: usize) -> bool {
        slot / 64 < self.width
            && medium < self.media
            && self.full[medium * self.width + slot / 64] >> (slot % 64) & 1 == 1
    }

    fn layout(&self) -> Layout {
        Layout { at: 0, width: self.width, media: self.media, partials: self.partials.len() }
    }

    /// Makes room for the pod's bit.
    fn grow(&mut self, slot: usize, medium: usize) {
        let width = self.width.max(slot / 64 + 1);
        let media = if medium == 0 { self.media } else { MEDIA };
        if (width, media) == (self.width, self.media) {
            return;
        }
        let mut full = vec![0; width * media];
        for (index, word) in self.full.iter().enumerate() {
            full[index / self.width * width + index % self.width] = *word;
        }
        (self.full, self.width, self.media) = (full, width, media);
    }
}
