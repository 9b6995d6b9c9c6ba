use http::StatusCode;

use super::{Toll, *};
use crate::client::{Answer, Failure};

fn answer(status: Option<u16>, failure: Option<Failure>) -> Answer {
    let mut answer = Answer::begin();
    answer.status = status.and_then(|status| StatusCode::from_u16(status).ok());
    answer.text = "yes".to_owned();
    answer.failure = failure;
    answer
}

#[test]
fn answers_are_counted_by_what_their_clients_saw() {
    let mut toll = Toll::default();
    let reset = || Failure::Reset("gone".into());
    let status = Failure::Status { status: StatusCode::BAD_GATEWAY, message: "no".into() };
    toll.add(&answer(Some(200), None), Some("yes"));
    toll.add(&answer(Some(200), None), None);
    toll.add(&answer(Some(200), None), Some("no"));
    toll.add(&answer(None, Some(reset())), Some("yes"));
    toll.add(&answer(Some(502), Some(status)), Some("yes"));
    toll.add(&answer(Some(200), Some(reset())), Some("yes"));
    toll.add(&answer(Some(200), Some(Failure::Truncated)), Some("yes"));
    toll.add(&answer(Some(200), Some(Failure::ErrorEvent("dead".into()))), Some("yes"));
    let counts: Vec<_> = toll.rows().map(|(_, count)| count).collect();
    assert_eq!(counts, [2, 2, 2, 1, 1]);
    assert_eq!((toll.total(), toll.visible(), toll.examples().len()), (8, 6, 5));
}

#[tokio::test]
async fn without_pods_there_is_nothing_to_restart() {
    let error = run(&Options::default(), &mut Vec::new()).await.expect_err("no pods");
    assert!(error.to_string().contains("--pod-urls"));
}
