//! `x-hearth-decision`: an RFC 9651 item, `warm;matched=1024;prompt=1500;trust=approximate`.
//!
//! Of a pod with several data-parallel ranks it says which one: `rank=1`.
//! Where some pods only prefill it goes on with `prefill="10.0.0.7:8000"`, the pod that did, or with
//! `split=short`, why none did.

use router::{Decision, Split};
use sfv::{Integer, ItemSerializer, KeyRef, StringRef, TokenRef};

/// The header of an answer for which nothing was decided: our own pages, and what is passed on
/// unread.
pub(crate) const NONE: &str = "none";

/// The header of an answer that came from a pod.
#[must_use]
pub(crate) fn header(decision: &Decision) -> String {
    let policy = decision.policy.to_string();
    let trust = decision.trust.word();
    let item = ItemSerializer::new()
        .bare_item(token(&policy))
        .parameter(key("matched"), Integer::from(decision.matched_tokens))
        .parameter(key("prompt"), Integer::from(decision.prompt_tokens))
        .parameter(key("trust"), token(trust));
    let item = match decision.rank {
        Some(rank) => item.parameter(key("rank"), Integer::from(rank)),
        None => item,
    };
    match decision.split {
        None => item.finish(),
        Some(Split { prefill: None, verdict, .. }) => {
            item.parameter(key("split"), token(verdict)).finish()
        }
        Some(Split { prefill: Some(addr), .. }) => {
            let addr = addr.to_string();
            let addr = StringRef::from_str(&addr).expect("an address is printable ASCII");
            item.parameter(key("prefill"), addr).finish()
        }
    }
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
            rank: None,
            split: None,
        };
        let text = header(&decision);
        assert_eq!(text, "least-request;matched=1024;prompt=1500;trust=approximate");
        assert!(sfv::Parser::new(&text).parse::<sfv::Item>().is_ok());
        let second = header(&Decision { rank: Some(1), ..decision });
        assert_eq!(second, format!("{text};rank=1"));
        let whole = Decision { split: Some(Split::whole("no-gain")), ..decision };
        assert_eq!(header(&whole), format!("{text};split=no-gain"));
        let prefill = Some("10.0.0.7:8000".parse().unwrap());
        let split = Split { prefill, ..Split::whole(Split::SPLIT) };
        let split = header(&Decision { split: Some(split), ..decision });
        assert_eq!(split, format!(r#"{text};prefill="10.0.0.7:8000""#));
        assert!(sfv::Parser::new(&split).parse::<sfv::Item>().is_ok());
        assert_eq!(refused("no_ready_pod"), "none;reason=no_ready_pod");
    }
}
