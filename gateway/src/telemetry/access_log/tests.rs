use std::io::Cursor;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use serde_json::Value;

use super::*;

/// The 15 keys of the logs that this replaces, in their order, then ours.
const KEYS: [&str; 34] = [
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "duration",
    "upstream_service_time",
    "upstream_host",
    "route_name",
    "authority",
    "x_session_id",
    "x_test_id",
    "user_agent",
    "request_id",
    "downstream_remote_address",
    "model",
    "policy",
    "prompt_tokens",
    "matched_tokens",
    "cached_tokens",
    "output_tokens",
    "decision_us",
    "ttft_ms",
    "queue_ms",
    "tpot_ms",
    "prefill_host",
    "prefill_ms",
    "transfer_ms",
    "total_ms",
    "attempts",
    "attempts_failed",
    "moves",
    "error",
    "decision",
];

/// Longer than any machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was written, readable while the writer lives.
#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Cursor<Vec<u8>>>>);

/// A reader that takes nothing until it is told to: each write says that it has begun.
struct Stuck {
    begun: SyncSender<()>,
    release: Receiver<()>,
}

impl Sheet {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().get_ref().clone()).expect("it is text")
    }
}

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.try_send(()).ok();
        // Released for good when the test drops its end.
        self.release.recv().ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn counter() -> IntCounter {
    IntCounter::new("dropped", "dropped").expect("a fine name")
}

fn record() -> Record {
    Record {
        start_time: "2026-11-24T09:52:06.123456Z".parse().expect("it is a time"),
        method: "POST".into(),
        path: "http://user:secret@llm-d.demo.local/v1/chat/completions?key=secret".into(),
        protocol: "HTTP/1.1",
        response_code: 200,
        duration: 123,
        upstream_service_time: Some(7),
        upstream_host: Some(([10, 0, 0, 1], 8000).into()),
        route_name: "chat",
        authority: Some("llm-d.demo.local".into()),
        x_session_id: Some("session-1".into()),
        request_id: "id-1".into(),
        model: Some("tiny".into()),
        policy: Some("warm"),
        prompt_tokens: Some(193),
        matched_tokens: Some(176),
        decision_us: Some(21),
        ttft_ms: Some(12.5),
        total_ms: 123.4,
        attempts: 2,
        error: Some("stream_cut"),
        decision: Some("warm;matched=176;prompt=193;trust=exact".to_owned()),
        ..Record::default()
    }
}

/// The lines that a log writes for these records.
fn written(format: LogFormat, records: Vec<Record>) -> String {
    let sheet = Sheet::default();
    let (log, writer) = start(sheet.clone(), format, 100, counter()).expect("there is a thread");
    records.into_iter().for_each(|record| log.write(record));
    writer.finish(PATIENCE);
    sheet.text()
}

#[test]
fn a_line_has_all_keys_in_order_and_no_query() {
    let text = written(LogFormat::Json, vec![record(), Record::default()]);
    for line in text.lines() {
        let json: Value = serde_json::from_str(line).expect("it is JSON");
        let keys: Vec<_> = json.as_object().expect("it is an object").keys().collect();
        assert_eq!(keys, KEYS);
    }
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains("secret"), "{text}");
    insta::assert_snapshot!(text.lines().next().unwrap_or_default());
}

#[test]
fn a_line_of_text_is_one_line_and_says_what_matters() {
    let hostile = Record { request_id: "a\nb\u{1b}[31m".into(), ..record() };
    let text = written(LogFormat::Text, vec![record(), hostile]);
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains('\u{1b}'), "{text}");
    insta::assert_snapshot!(text.lines().next().unwrap_or_default());
}

#[test]
fn a_client_s_words_are_cut_at_a_character() {
    assert_eq!(Clipped::from("ä".repeat(300).as_str()).as_str(), "ä".repeat(128));
    assert_eq!(Clipped::from(("a".to_owned() + &"ä".repeat(300)).as_str()).as_str().len(), 255);
    let value = http::HeaderValue::from_bytes(&[0xff; 1000]).expect("opaque bytes are a value");
    assert!(Clipped::from(&value).as_str().len() <= 256);
}

#[test]
fn a_reader_that_takes_nothing_costs_lines_and_is_never_waited_for() {
    let (begun, begins) = sync_channel(1);
    let (free, release) = sync_channel(0);
    let dropped = counter();
    let out = Stuck { begun, release };
    let (log, writer) = start(out, LogFormat::Json, 3, dropped.clone()).expect("a thread");
    log.write(record());
    begins.recv().expect("the first line is being written");
    // The first is in the reader's hands; three may wait.
    for _ in 0..10 {
        log.write(record());
    }
    assert_eq!(dropped.get(), 7);
    drop::<SyncSender<()>>(free);
    writer.finish(PATIENCE);
    assert_eq!(dropped.get(), 7);
}

#[test]
fn lines_that_a_closed_reader_does_not_take_are_counted() {
    /// Fails like a pipe that nobody reads.
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dropped = counter();
    let (log, writer) = start(Closed, LogFormat::Json, 9, dropped.clone()).expect("a thread");
    (0..5).for_each(|_| log.write(record()));
    writer.finish(PATIENCE);
    assert_eq!(dropped.get(), 5);
}

#[test]
fn lines_after_the_end_are_counted() {
    let dropped = counter();
    let (log, writer) = start(io::sink(), LogFormat::Json, 3, dropped.clone()).expect("a thread");
    writer.finish(PATIENCE);
    log.write(record());
    assert_eq!(dropped.get(), 1);
}
