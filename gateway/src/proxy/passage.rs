//! What is done with a pod's bytes on their way to the client: looked into, and mended where needed.

use std::time::Instant;

use bytes::Bytes;
use router::Placement;
use router::continuation::{Stream, Writing};

use super::usage::Repair;
use crate::request::failure::Failure;
use crate::request::observe::Observer;

/// What is done with a pod's bytes on their way to the client.
pub(super) struct Passage {
    pub(super) stream: Option<Box<Stream>>,
    pub(super) observer: Observer,
    /// Sets what was reused of the prompt, where another pod computed it.
    pub(super) repair: Option<Repair>,
    pub(super) is_success: bool,
    /// The pod's part has shown a token.
    pub(super) has_token: bool,
    /// Why the pod was left, where it only fell silent.
    pub(super) silence: Option<Failure>,
}

// === impl Passage ===

impl Passage {
    /// What the client gets of a pod's bytes.
    pub(super) fn pass(&mut self, bytes: Bytes) -> Bytes {
        let Some(stream) = &mut self.stream else { return bytes };
        let mut out = Vec::with_capacity(bytes.len());
        stream.feed(&bytes, &mut out);
        Bytes::from(out)
    }

    pub(super) fn look(&mut self, bytes: &Bytes, placement: &mut Placement) {
        if bytes.is_empty() {
            return;
        }
        let is_first = self.observer.look(bytes);
        if self.is_success && (is_first || !std::mem::replace(&mut self.has_token, true)) {
            placement.first_token(Instant::now());
        }
    }

    pub(super) fn repaired(&mut self, bytes: Bytes) -> Bytes {
        self.repair.as_mut().map_or_else(|| bytes.clone(), |it| it.pass(&bytes))
    }

    /// An answer that came in one piece.
    pub(super) fn whole(&mut self, bytes: Bytes, placement: &mut Placement) -> Bytes {
        self.look(&bytes, placement);
        [self.repaired(bytes), self.rest()].concat().into()
    }

    /// What was held back for the repair.
    pub(super) fn rest(&mut self) -> Bytes {
        self.repair.as_mut().map(Repair::finish).unwrap_or_default()
    }

    pub(super) fn state(&self) -> Option<Writing> {
        self.stream.as_ref().map(|stream| stream.state())
    }

    /// Whether a pod that has closed left the answer without its end.
    pub(super) fn is_unfinished(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_unfinished())
    }

    pub(super) fn is_mid_line(&self) -> bool {
        match &self.stream {
            Some(stream) if !stream.is_mid_event() => false,
            _ => self.observer.is_mid_line(),
        }
    }
}
