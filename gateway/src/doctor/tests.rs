use std::collections::BTreeMap;

use router::pool::Role;

use super::examine::{Events, Facts, label};
use super::judge;
use super::tokens::Agreement;

fn healthy() -> Facts {
    Facts {
        models: vec!["tiny".to_owned()],
        parents: BTreeMap::new(),
        version: Some("0.32.0".to_owned()),
        block_size: Some(16),
        prefix_caching: Some(true),
        events: Events::On { replay: true },
        token_details: Some(true),
        tokens: Agreement { ids: Some(true), text: Some(true), chat: Some(true) },
        clock_skew_s: Some(0),
        keeps_alive: Some(true),
    }
}

fn codes(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
    let (mut odd, others) = (healthy(), [healthy(), healthy()]);
    change(&mut odd);
    let findings = judge::pod(&odd, others.iter().chain([&odd]));
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn a_healthy_pod_has_no_finding() {
    assert_eq!(codes(|_| {}), [""; 0]);
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    assert_eq!(codes(|it| it.prefix_caching = Some(false)), ["prefix_caching"]);
    assert_eq!(codes(|it| it.token_details = Some(false)), ["token_details"]);
    assert_eq!(codes(|it| it.events = Events::Off), ["no_events"]);
    assert_eq!(codes(|it| it.events = Events::On { replay: false }), ["no_replay"]);
    let port = Events::Unreachable { port: 5557 };
    assert_eq!(codes(|it| it.events = port), ["events_unreachable"]);
    assert_eq!(codes(|it| it.tokens.ids = Some(false)), ["tokenizer"]);
    assert_eq!(codes(|it| it.tokens.text = Some(false)), ["tokenizer"]);
    assert_eq!(codes(|it| it.tokens.chat = Some(false)), ["template"]);
    assert_eq!(codes(|it| it.clock_skew_s = Some(-90)), ["clock"]);
    assert_eq!(codes(|it| it.keeps_alive = Some(false)), ["keep_alive"]);
    assert_eq!(codes(|it| it.block_size = Some(64)), ["block_size"]);
    assert_eq!(codes(|it| it.version = Some("0.10.0".to_owned())), ["version"]);
    assert_eq!(codes(|it| it.models = vec!["other".to_owned()]), ["model"]);
}

#[test]
fn what_cannot_be_told_is_no_fault() {
    let unsaid = |it: &mut Facts| {
        *it = Facts { models: it.models.clone(), events: it.events, ..Facts::default() };
    };
    assert_eq!(codes(unsaid), [""; 0]);
}

#[test]
fn what_a_pod_said_of_its_models_and_events_is_what_can_disagree() {
    let mut facts = healthy();
    facts.models.push("lora".to_owned());
    facts.parents.insert("lora".to_owned(), "tiny".to_owned());
    let claims = facts.claims();
    assert!(claims.tells && claims.is_asked);
    assert_eq!(
        claims.models,
        [("tiny".to_owned(), None), ("lora".to_owned(), Some("tiny".to_owned()))]
    );
    facts.events = Events::Unreachable { port: 5557 };
    assert!(!facts.claims().tells);
}

#[test]
fn roles_are_judged_together() {
    let code = |roles: &[Role]| judge::roles(roles).map(|finding| finding.code);
    assert_eq!(code(&[Role::Prefill, Role::Decode]), None);
    assert_eq!(code(&[Role::Both, Role::Both]), None);
    assert_eq!(code(&[Role::Prefill]), Some("no_decode"));
    assert_eq!(code(&[Role::Prefill, Role::Decode, Role::Both]), Some("role_missing"));
}

#[test]
fn the_cache_is_read_from_vllms_own_line() {
    let page = "vllm:other 1\nvllm:cache_config_info{block_size=\"16\",enable_prefix_caching=\
                \"False\",engine=\"0\"} 1.0\n";
    assert_eq!(label(page, "block_size"), Some("16"));
    assert_eq!(label(page, "enable_prefix_caching"), Some("False"));
    assert_eq!(label("", "block_size"), None);
}
