//! `x-hearth-decision`: an RFC 9651 item, `warm;matched=1024;prompt=1500;trust=approximate`.

use router::Decision;
use sfv::{Integer, ItemSerializer, KeyRef, TokenRef};

/// The header of an answer for which nothing was decided: our own pages, and what is passed on
/// unread.
pub(crate) const NONE: &str = "none";

/// The header of an answer that came from a pod.
#[must_use]
pub(crate) fn header(decision: &Decision) -> String {
    let policy = decision.policy.to_string();
    let trust = decision.trust.word();
    ItemSerializer::new()
        .bare_item(token(&policy))
        .parameter(key("matched"), Integer::from(decision.matched_tokens))
        .parameter(key("prompt"), Integer::from(decision.prompt_tokens))
        .parameter(key("trust"), token(trust))
        .finish()
}

/// The header of an answer of our own: `none;reason=no_ready_pod`.
#[must_use]
pub(crate) fn refused(reason: &'static str) -> String {
    let none = ItemSerializer::new().bare_item(token("none"));
    none.parameter(key("reason"), token(reason)).finish()
}

fn token(text: &str) -> &TokenRef {
    TokenRef::from_str(text).expect("names of policies and reasons are tokens")
}

fn key(text: &'static str) -> &'static KeyRef {
    KeyRef::from_str(text).expect("a lower-case word is a key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use router::Trust;
    use router::policy::PolicyName;

    #[test]
    fn the_header_is_a_structured_item() {
        let decision = Decision {
            policy: PolicyName::LeastRequest,
            matched_tokens: 1024,
            prompt_tokens: 1500,
            trust: Trust::Approximate,
        };
        let text = header(&decision);
        assert_eq!(text, "least-request;matched=1024;prompt=1500;trust=approximate");
        assert!(sfv::Parser::new(&text).parse::<sfv::Item>().is_ok());
        assert_eq!(refused("no_ready_pod"), "none;reason=no_ready_pod");
    }
}
