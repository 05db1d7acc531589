//! The life of one sink: read, send, see that it arrived, move the cursor.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proxy_journal::follow::{Cursor, Follower, Step};
use proxy_journal::{Content, Entry};
use tokio::sync::watch;

use super::calls::Calls;
use super::cursor::CursorFile;
use super::message::Message;
use super::way::{Trouble, Way};
use super::{Shared, SinkState, UNKNOWN};
use crate::record::Signal;

/// What is read and not sent, at most: one batch. A record that is longer is a batch of its own.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 256 << 10;
/// How often the cursor is kept at most. What was sent since is sent again after a kill.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// After records that came, it is not looked for others before this: they come together then.
const GAP: Duration = Duration::from_millis(25);
/// How often it is looked at what is there, without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And while something that was handed over is still held back.
const LOOK_HELD: Duration = Duration::from_millis(250);
/// How long it waits after trouble: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a receiver may tell to wait.
const LONGEST_TOLD: Duration = Duration::from_secs(300);
/// And for somebody who is not there, which costs nothing to see.
const LONGEST_ABSENT: Duration = Duration::from_secs(2);

/// One sink at work.
pub(super) struct Worker<W> {
    way: W,
    journal: PathBuf,
    follower: Follower,
    calls: Calls,
    /// What its receiver has for sure: where it goes on after trouble, and after a restart.
    confirmed: Cursor,
    /// What was handed over since, the oldest first.
    held: VecDeque<Held>,
    /// Bytes that were handed over on this way, altogether.
    bytes: u64,
    file: CursorFile,
    kept_at: Option<Instant>,
    /// The cursor could not be kept, and that was told.
    unkept: bool,
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    stopping: bool,
    /// Last record that was told to be lost, and how far lines were told to be none: after trouble all of it is read again.
    lost_to: u64,
    unreadable_to: (u32, u64),
    /// What was read may not be sent yet: whoever cuts that short begins again.
    sending: bool,
}

/// What was handed over at about the same time.
struct Held {
    after: Cursor,
    records: u64,
    bytes: u64,
    first: Instant,
    /// When it was seen first that the receiver's host has it.
    arrived: Option<Instant>,
}

/// What a round came to.
#[derive(PartialEq, Eq)]
enum Round {
    Sent,
    Idle,
}

/// Runs a sink on this thread, until it is told to stop; then it has so long for what is left.
pub(super) fn run<W: Way>(mut worker: Worker<W>, mut stopping: watch::Receiver<bool>, within: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            worker.shared.set(SinkState::Failing(format!("it has no runtime: {error}")));
            return;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = worker.serve() => {}
            // An end of the sender is one too.
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        worker.stopping = true;
        if worker.sending {
            // What was read and is not sent would be passed over, and the cursor move behind it with what follows.
            worker.begin_again();
        }
        let _ = tokio::time::timeout(within, worker.finish()).await;
        worker.keep(true);
    });
    // A name that is still looked up must not hold up the end.
    runtime.shutdown_background();
}

impl<W: Way> Worker<W> {
    pub(super) fn new(
        way: W,
        journal: &Path,
        at: Cursor,
        file: CursorFile,
        shared: Arc<Shared>,
        signal: Arc<Signal>,
    ) -> Worker<W> {
        let place = &at.place;
        if place.seq > 0 || (place.segment, place.offset) == (1, 0) {
            shared.confirmed.store(place.seq, Ordering::Relaxed);
        }
        Worker {
            way,
            journal: journal.to_owned(),
            follower: Follower::resume(journal, at.clone()),
            calls: Calls::before(journal, &at.place),
            confirmed: at,
            held: VecDeque::new(),
            bytes: 0,
            file,
            kept_at: None,
            unkept: false,
            shared,
            signal,
            stopping: false,
            lost_to: 0,
            unreadable_to: (0, 0),
            sending: false,
        }
    }

    /// Sends whatever comes, for ever.
    async fn serve(&mut self) {
        // A new one begins where it was made, also if nothing is sent before the next start.
        self.keep(true);
        let mut wait = FIRST_WAIT;
        loop {
            match self.round().await {
                Ok(Round::Sent) => wait = FIRST_WAIT,
                Ok(Round::Idle) => self.rest().await,
                Err(trouble) => {
                    let longest = if trouble.absent { LONGEST_ABSENT } else { LONGEST_WAIT };
                    // When a receiver said, and not before; but an answer of "at once" is no load without an end.
                    let told = trouble.after.map(|after| after.clamp(FIRST_WAIT, LONGEST_TOLD));
                    self.failed(trouble);
                    // Not all hosts come back at the same moment.
                    let half = wait.min(longest) / 2;
                    let (pause, spread) = told.map_or((half, half), |told| (told, told / 4));
                    tokio::time::sleep(pause + spread.mul_f64(chance())).await;
                    wait = (wait * 2).min(longest);
                }
            }
            self.keep(false);
        }
    }

    /// Sends what is left, once.
    async fn finish(&mut self) {
        loop {
            match self.round().await {
                Ok(Round::Sent) => {}
                Ok(Round::Idle) => break,
                Err(trouble) => {
                    self.failed(trouble);
                    return;
                }
            }
        }
        if self.way.end().await
            && let Some(last) = self.held.pop_back()
        {
            self.held.clear();
            self.confirm(last.after);
        }
    }

    /// Reads a batch and sends it.
    async fn round(&mut self) -> Result<Round, Trouble> {
        self.sending = true;
        self.follower.read_up_to(self.signal.head());
        let batch =
            self.batch().map_err(|error| Trouble::new(format!("the journal cannot be read: {error}")))?;
        let oldest = batch.first().map_or(0, |message| message.line.time.micros());
        self.shared.oldest_us.store(oldest, Ordering::Relaxed);
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let sent = self.way.send(rest).await?;
            let (done, left) = rest.split_at(sent.count.min(rest.len()));
            rest = left;
            if let Some(last) = done.last() {
                self.shared.rejected.fetch_add(sent.rejected, Ordering::Relaxed);
                let records = u64::try_from(done.len()).unwrap_or(0);
                self.shared.sent.fetch_add(records.saturating_sub(sent.rejected), Ordering::Relaxed);
                self.hold(last.after.clone(), records, sent.bytes);
                self.well();
                self.see_what_arrived().await?;
            }
        }
        self.see_what_arrived().await?;
        self.sending = false;
        Ok(if batch.is_empty() { Round::Idle } else { Round::Sent })
    }

    /// What comes next, bounded.
    fn batch(&mut self) -> std::io::Result<Vec<Message>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let line = match self.follower.next()? {
                Step::Line(line) => line,
                Step::End => break,
                other => {
                    self.told(&other);
                    continue;
                }
            };
            let content = match line.entry() {
                Ok(Entry { content, .. }) => content,
                Err(fault) => {
                    self.told(&Step::Unreadable(fault));
                    continue;
                }
            };
            bytes += line.text.len();
            let decision = match &content {
                Content::Known(record) => self.calls.see(record),
                Content::Other(_) => None,
            };
            batch.push(Message { line, content, decision, after: self.follower.cursor().clone() });
        }
        Ok(batch)
    }

    /// What the journal said that is no record: told and counted once, however often it is read.
    fn told(&mut self, step: &Step) {
        let place = &self.follower.cursor().place;
        let place = (place.segment, place.offset);
        let (sink, shared) = (&self.shared.name, &self.shared);
        match step {
            Step::Lost { first, last } => {
                let first = (*first).max(self.lost_to.saturating_add(1));
                if first > *last {
                    return;
                }
                self.lost_to = *last;
                shared.lost.fetch_add(last - first + 1, Ordering::Relaxed);
                tracing::error!(
                    sink,
                    first,
                    last,
                    "the journal's retention removed records before this sink had sent them"
                );
            }
            Step::Changed { read, back_to } => {
                self.lost_to = self.lost_to.min(*back_to);
                self.unreadable_to = (0, 0);
                tracing::warn!(
                    sink,
                    read,
                    back_to,
                    "the journal is not what was read of it (a loss of power, or another journal): it is sent again from there"
                );
            }
            Step::Unreadable(_) if place <= self.unreadable_to => {}
            Step::Unreadable(fault) => {
                self.unreadable_to = place;
                shared.rejected.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    sink,
                    ?fault,
                    "a line of the journal is no record, and not sent; run `vouchsafe audit verify`"
                );
            }
            Step::Line(_) | Step::End => {}
        }
    }

    fn hold(&mut self, after: Cursor, records: u64, bytes: u64) {
        let now = Instant::now();
        self.bytes += bytes;
        match self.held.back_mut() {
            Some(held) if now.duration_since(held.first) < LOOK_HELD => {
                held.after = after;
                held.records += records;
                held.bytes = self.bytes;
                held.arrived = None;
            }
            _ => self.held.push_back(Held { after, records, bytes: self.bytes, first: now, arrived: None }),
        }
    }

    /// Moves the cursor behind what the receiver has.
    async fn see_what_arrived(&mut self) -> Result<(), Trouble> {
        if self.held.is_empty() {
            // A way that broke is seen also while nothing is sent.
            return self.way.waiting().await.map(drop);
        }
        let arrived = self.bytes.saturating_sub(self.way.waiting().await?);
        let now = Instant::now();
        for held in self.held.iter_mut().take_while(|held| held.bytes <= arrived) {
            held.arrived.get_or_insert(now);
        }
        while let Some(held) = self.held.front()
            && held.bytes <= arrived
            && held.arrived.is_some_and(|at| now.duration_since(at) >= W::HOLD)
        {
            if let Some(held) = self.held.pop_front() {
                self.confirm(held.after);
            }
        }
        Ok(())
    }

    fn confirm(&mut self, after: Cursor) {
        self.shared.confirmed.store(after.place.seq, Ordering::Relaxed);
        self.confirmed = after;
    }

    /// Waits for something to do.
    async fn rest(&mut self) {
        tokio::time::sleep(GAP).await;
        let read = self.follower.cursor().place.seq;
        let head = self.signal.head();
        if read == 0 && self.shared.confirmed.load(Ordering::Relaxed) == UNKNOWN {
            // It began at the end, and nothing has come since.
            self.shared.confirmed.store(head, Ordering::Relaxed);
        }
        let look = match (self.held.is_empty(), read > 0 && read < head) {
            // The segment that it stands in is being moved.
            (_, true) | (false, _) => LOOK_HELD,
            (true, _) => LOOK_EVERY,
        };
        let unkept = self.file.differs(&self.confirmed);
        let look = if unkept { look.min(KEEP_EVERY) } else { look };
        tokio::select! {
            () = self.signal.beyond(head) => {}
            () = tokio::time::sleep(look) => {}
        }
    }

    /// Something went well.
    fn well(&self) {
        if self.shared.set(SinkState::Ok) {
            tracing::info!(sink = self.shared.name, "records are sent again");
        }
    }

    /// Everything that is not sure is to be sent again.
    fn begin_again(&mut self) {
        self.way.reset();
        self.held.clear();
        self.bytes = 0;
        self.follower = Follower::resume(&self.journal, self.confirmed.clone());
        self.sending = false;
    }

    fn failed(&mut self, trouble: Trouble) {
        self.begin_again();
        let (sink, what) = (&self.shared.name, trouble.what);
        if trouble.absent {
            if self.shared.set(SinkState::Absent) {
                tracing::info!(sink, what, "nobody is there for the records; they are sent when somebody is");
            }
        } else if self.shared.set(SinkState::Failing(what.clone())) {
            tracing::warn!(
                sink,
                what,
                "records cannot be sent; they are kept in the journal, and sent later"
            );
        }
    }

    /// Keeps the cursor, if it is time.
    fn keep(&mut self, now: bool) {
        let is_due = now || self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
        if !is_due || !self.file.differs(&self.confirmed) {
            return;
        }
        self.kept_at = Some(Instant::now());
        if let Err(trouble) = self.way.settle() {
            return self.failed(trouble);
        }
        match self.file.keep(&self.confirmed) {
            Ok(()) => self.unkept = false,
            Err(error) if !self.unkept => {
                self.unkept = true;
                tracing::error!(sink = self.shared.name, %error, source = ?std::error::Error::source(&error), "a restart will send records again");
            }
            Err(_) => {}
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut byte = [0];
    // Without randomness it is less.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
