//! Errors with what caused them.

use std::error::Error;

/// An error with its causes, each told once: many libraries' messages hold their cause's already.
#[must_use]
pub fn story(error: &dyn Error) -> String {
    let mut story = error.to_string();
    for cause in causes(error) {
        let more = cause.to_string();
        if !story.contains(&more) {
            story.push_str(": ");
            story.push_str(&more);
        }
    }
    story
}

/// What an error came from, one after the other.
pub fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Trouble {
        said: &'static str,
        source: Option<Box<Trouble>>,
    }

    #[test]
    fn a_cause_that_the_message_holds_already_is_told_once() {
        let trouble = |said, source| Some(Box::new(Trouble { said, source }));
        let end = trouble("refused", trouble("os error 111", None));
        let error = Trouble { said: "cannot connect: refused", source: end };
        assert_eq!(story(&error), "cannot connect: refused: os error 111");
        assert_eq!(causes(&error).count(), 2);
    }
}
