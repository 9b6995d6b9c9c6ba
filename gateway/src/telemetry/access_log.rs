//! One line per request, written by a thread of its own: a reader of stdout that stops reading
//! costs lines, which are counted, and never a request.

mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

use crate::config::LogFormat;

pub use record::{Clipped, FailedAttempt, PathOnly, Record};

/// Lines are gathered into writes of about so many bytes while more are waiting.
const PAGE_BYTES: usize = 32 << 10;

/// Lines are gathered for so long once one has come. To wake a thread for every line costs the
/// request two system calls and the kernel a switch: a tenth of a short request.
const GATHER: Duration = Duration::from_millis(10);

/// Longest wait for the last lines at the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Where records go. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    /// Unbounded, so that the end can always be told; `waiting` is what bounds it.
    lines: Sender<Line>,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    dropped: IntCounter,
}

/// Owns the thread that writes. When dropped, the lines that wait are written, then the thread is
/// joined; a reader that takes nothing for half a second is left behind.
#[derive(Debug)]
pub struct AccessLogWriter {
    lines: Sender<Line>,
    ended: Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread gets.
enum Line {
    Record(Box<Record>),
    End,
}

/// The thread's side.
struct Scribe<W> {
    lines: Receiver<Line>,
    waiting: Arc<AtomicUsize>,
    format: LogFormat,
    out: W,
    page: Page,
    dropped: IntCounter,
}

/// Whole lines that go out in one write: a line is never torn by what else is written to stdout.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
    lines: u64,
}

/// Starts an access log on `out`. At most `capacity` lines wait; `dropped` counts the others.
///
/// # Errors
/// The system gives no thread.
pub fn start<W: Write + Send + 'static>(
    out: W,
    format: LogFormat,
    capacity: usize,
    dropped: IntCounter,
) -> io::Result<(AccessLog, AccessLogWriter)> {
    let (lines, receiver) = channel();
    let (end, ended) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let scribe = Scribe {
        lines: receiver,
        waiting: waiting.clone(),
        format,
        out,
        page: Page::default(),
        dropped: dropped.clone(),
    };
    let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        scribe.run();
        drop(end);
    })?;
    let writer = AccessLogWriter { lines: lines.clone(), ended, thread: Some(thread) };
    Ok((AccessLog { lines, waiting, capacity, dropped }, writer))
}

// === impl AccessLog ===

impl AccessLog {
    /// Queues a record. Never waits; a record that finds the queue full is dropped and counted.
    pub fn write(&self, record: Record) {
        let fits = self.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity;
        let sent = fits && self.lines.send(Line::Record(Box::new(record))).is_ok();
        if !sent {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.inc();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

// === impl AccessLogWriter ===

impl AccessLogWriter {
    /// Writes the lines that wait, for at most so long.
    #[cfg(test)]
    fn finish(mut self, limit: Duration) {
        self.end(limit);
    }

    fn end(&mut self, limit: Duration) {
        let Some(thread) = self.thread.take() else { return };
        // It fails only when the thread has ended already.
        self.lines.send(Line::End).ok();
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("nobody reads the access log: its last lines are lost");
        } else if thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        self.end(FLUSH_LIMIT);
    }
}

// === impl Scribe ===

impl<W: Write> Scribe<W> {
    fn run(mut self) {
        while let Ok(Line::Record(record)) = self.next() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.write(&record);
            if self.page.text.len() >= PAGE_BYTES {
                self.flush();
            }
        }
        self.flush();
    }

    /// The next line; before waiting for one, what is written goes out.
    fn next(&mut self) -> Result<Line, RecvError> {
        match self.lines.try_recv() {
            Ok(line) => Ok(line),
            Err(TryRecvError::Disconnected) => Err(RecvError),
            Err(TryRecvError::Empty) => {
                self.flush();
                let line = self.lines.recv();
                if matches!(line, Ok(Line::Record(_))) {
                    thread::sleep(GATHER);
                }
                line
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let text = &mut self.page.text;
        let start = text.len();
        let written = match self.format {
            LogFormat::Json => serde_json::to_writer(&mut *text, record).is_ok(),
            LogFormat::Text => write!(text, "{record}").is_ok(),
        };
        if written {
            text.push(b'\n');
            self.page.lines += 1;
        } else {
            text.truncate(start);
            self.dropped.inc();
        }
    }

    fn flush(&mut self) {
        let page = &mut self.page;
        if page.lines == 0 {
            return;
        }
        if self.out.write_all(&page.text).and_then(|()| self.out.flush()).is_err() {
            self.dropped.inc_by(page.lines);
        }
        page.text.clear();
        page.lines = 0;
    }
}
