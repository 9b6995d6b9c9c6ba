//! One stream to the client, whatever happens to the pods behind it.
//!
//! [`Stream`] is fed with what pods send and tells what the client gets. It remembers the tokens, so
//! that after a cut another pod can go on where the last one stopped: [`Stream::resume`] makes the
//! request for it, and what that pod sends is told as if the first had gone on. Pure: no IO, no
//! clock.
//!
//! What can be continued is in [`FEATURES`], a row for each member of a request.

mod ending;
mod features;
mod resumption;
mod rewrite;
mod seam;
mod splice;
mod stops;
mod stream;
#[cfg(test)]
mod tests;

pub use ending::is_aborted;
pub use features::{Carry, FEATURES};
pub use resumption::{Cannot, Next, ResumeParams, Resumption};
pub use seam::Model;
pub use splice::{asking_for_ids, shows_answer, shows_text};
pub use stream::{Stream, Writing};
