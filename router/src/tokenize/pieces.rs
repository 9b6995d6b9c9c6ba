//! Encoding piece by piece, with the pieces that were encoded before taken from the memo.

use rand::Rng as _;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::cuts::Cuts;
use super::memo::Memo;
use super::{TokenizeError, encoder::Encoder};

/// How one tokenizer's texts are taken apart and put together again.
pub(super) struct Pieces {
    cuts: Cuts,
    /// Of this tokenizer and process: the memo's keys are hashes under it.
    secret: Box<[u8; SECRET_BYTES]>,
    around: Option<Around>,
}

/// What the post-processor puts around every text, whatever it is.
#[derive(Debug, PartialEq, Eq)]
struct Around {
    before: Vec<u32>,
    after: Vec<u32>,
}

/// What XXH3 asks for at least is 136; its own secret has 192.
const SECRET_BYTES: usize = 192;

/// Pieces are at least so long: about 256 tokens of English. Shorter ones cost more to look up than
/// to encode, longer ones leave more of a text's end to be encoded again.
const PIECE_BYTES: usize = 1024;

/// Bytes per token that room is made for, a little below English prose.
const BYTES_PER_TOKEN: usize = 4;

// === impl Pieces ===

impl Pieces {
    /// How the texts of a tokenizer can be taken apart; none if no cut is certain, or if a try on
    /// `probes` says otherwise.
    pub(super) fn of(json: &Value, encoder: &Encoder, probes: &[&str]) -> Option<Self> {
        let mut secret = Box::new([0; SECRET_BYTES]);
        rand::rng().fill(&mut secret[..]);
        let around = Around::of(encoder, probes);
        let pieces = Self { cuts: Cuts::of(json)?, secret, around };
        let is_proven = probes.iter().all(|text| {
            let mut ids = Vec::new();
            let joined = pieces
                .cuts
                .pieces(text, 1)
                .try_for_each(|piece| encoder.encode(piece, false).map(|piece| ids.extend(piece)));
            joined.is_ok() && encoder.encode(text, false).ok() == Some(ids)
        });
        is_proven.then_some(pieces)
    }

    /// The ids of `text`; none if `specials` are asked for and depend on the text.
    pub(super) fn encode(
        &self,
        encoder: &Encoder,
        memo: &Memo,
        text: &str,
        specials: bool,
    ) -> Result<Option<Vec<u32>>, TokenizeError> {
        let around = match (&self.around, specials) {
            (_, false) => None,
            (Some(around), true) => Some(around),
            (None, true) => return Ok(None),
        };
        let mut ids = Vec::with_capacity(text.len() / BYTES_PER_TOKEN + PIECE_BYTES);
        ids.extend(around.iter().flat_map(|around| &around.before));
        let (mut made, mut rest) = (0, text.len());
        for piece in self.cuts.pieces(text, PIECE_BYTES) {
            rest -= piece.len();
            let key = xxh3_128_with_secret(piece.as_bytes(), &self.secret[..]);
            if rest > 0 && memo.find(key, &mut ids) {
                continue;
            }
            let new = encoder.encode(piece, false)?;
            if rest > 0 {
                memo.keep(key, &new);
            }
            made += new.len();
            ids.extend_from_slice(&new);
        }
        memo.count(ids.len() - made, made);
        ids.extend(around.iter().flat_map(|around| &around.after));
        Ok(Some(ids))
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("cuts", &self.cuts).finish_non_exhaustive()
    }
}

// === impl Around ===

impl Around {
    /// What is put around the first probe that has ids, if it is around all of them.
    fn of(encoder: &Encoder, probes: &[&str]) -> Option<Self> {
        let around = |text: &str| {
            let (plain, full) =
                (encoder.encode(text, false).ok()?, encoder.encode(text, true).ok()?);
            let at = full.windows(plain.len().max(1)).position(|window| window == plain)?;
            let (before, rest) = full.split_at(at);
            Some(Self { before: before.to_vec(), after: rest[plain.len()..].to_vec() })
        };
        let is_empty = |text: &&&str| encoder.encode(text, false).is_ok_and(|ids| ids.is_empty());
        let mut told = probes.iter().filter(|text| !is_empty(text)).map(|text| around(text));
        let first = told.next()??;
        told.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }
}
