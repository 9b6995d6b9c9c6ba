//! One line per request, written by a thread of its own: a reader of stdout that stops reading
//! costs lines, which are counted, and never a request.

mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

use crate::config::LogFormat;

pub use record::{Clipped, PathOnly, Record};

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
struct Scribe<W: Write> {
    lines: Receiver<Line>,
    waiting: Arc<AtomicUsize>,
    format: LogFormat,
    out: io::BufWriter<W>,
    dropped: IntCounter,
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
        out: io::BufWriter::with_capacity(64 << 10, out),
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

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        // Either fails only when the thread has ended already.
        self.lines.send(Line::End).ok();
        let stuck =
            self.ended.recv_timeout(FLUSH_LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if let Some(thread) = self.thread.take().filter(|_| !stuck)
            && thread.join().is_err()
        {
            tracing::error!("the access log's thread panicked");
        }
    }
}

// === impl Scribe ===

impl<W: Write> Scribe<W> {
    fn run(mut self) {
        while let Ok(Line::Record(record)) = self.next() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if self.write(&record).is_err() {
                self.dropped.inc();
            }
        }
        self.flush();
    }

    /// The next line; before waiting for one, what is written goes out.
    fn next(&mut self) -> Result<Line, std::sync::mpsc::RecvError> {
        match self.lines.try_recv() {
            Ok(line) => Ok(line),
            Err(TryRecvError::Disconnected) => Err(std::sync::mpsc::RecvError),
            Err(TryRecvError::Empty) => {
                self.flush();
                self.lines.recv()
            }
        }
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        match self.format {
            LogFormat::Json => serde_json::to_writer(&mut self.out, record)?,
            LogFormat::Text => write!(self.out, "{record}")?,
        }
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) {
        if self.out.flush().is_err() {
            self.dropped.inc();
        }
    }
}
