mod here;

use super::buffers::Buffers;
use super::input::Input;
use super::negotiate::Opened;
use super::output::{Cost, Output};
use super::registry::Registration;
use super::{ServerOptions, SessionEnd, SessionError};
use crate::ExportError;
use crate::handshake::Negotiated;
use crate::operation::{Answer, Effect, Finished, carry_out};
use crate::proto::{Command, Errno, Operation, ReplyWriter, Request, Verdict, judge};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use here::{Group, Pace};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// What is held for requests that are not answered yet, answers in the queue included.
#[derive(Clone, Copy, Default)]
struct Admitted {
    requests: usize,
    bytes: usize,
}

impl Admitted {
    const fn has_room(self, cost: Cost, options: &ServerOptions) -> bool {
        let fits = self.bytes.saturating_add(cost.bytes) <= options.bytes_in_flight_max;
        // A request larger than the bound is served alone rather than never.
        (self.requests < options.requests_in_flight_max && fits) || self.requests == 0
    }

    const fn add(&mut self, cost: Cost) {
        self.requests += cost.requests;
        self.bytes += cost.bytes;
    }

    const fn release(&mut self, cost: Cost) {
        self.requests -= cost.requests;
        self.bytes -= cost.bytes;
    }
}

/// How far the request is that is being taken in.
#[derive(Clone, Copy)]
enum Stage {
    /// None has begun.
    Header,
    /// Judged, and waiting for room.
    Waiting(Request, Verdict),
    /// Admitted; its payload arrives.
    Payload(Request, Operation),
    /// Admitted for refusal; its payload passes by.
    Skip(Request, Errno, &'static str),
}

/// Why the session takes no more requests.
enum Ending {
    /// The client said so.
    Left,
    /// The client's stream ended or broke; nobody is there to be answered.
    Gone(Option<SessionError>),
    /// The client broke the protocol.
    Broken(SessionError),
    /// Authority was taken away: whatever is still in flight is answered ESHUTDOWN.
    Revoked,
    /// The server wants it.
    Disconnected,
}

/// On what a session's task runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Lane {
    /// On a thread with others, which must not block.
    #[default]
    Shared,
    /// On a thread of its own: requests may be carried out on it.
    Own,
}

/// Changes that are answered together: cookie, what it is, what it takes.
type Waiting = Vec<(u64, Operation, Cost)>;

/// What has come to its end.
enum Done {
    Request(Cost, Finished),
    /// A group of changes is durable, or is not.
    Settled(Waiting, Result<(), ExportError>),
}

/// One client's transmission phase.
pub(super) struct Session<R, W> {
    options: ServerOptions,
    export_name: String,
    opened: Opened,
    structured: bool,
    allocation: bool,
    input: Input<R>,
    output: Output<W>,
    replies: ReplyWriter,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    lane: Lane,
    pace: Pace,
    buffers: Buffers,
    group: Group,
    /// Groups that are being made durable.
    settling: usize,
    admitted: Admitted,
    stage: Stage,
    ending: Option<Ending>,
    /// A failure of the export was logged; further ones of this session are not, lest a dead disk
    /// floods the log.
    complained: bool,
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) fn new(
        options: ServerOptions,
        lane: Lane,
        negotiated: Negotiated,
        opened: Opened,
        reader: R,
        writer: W,
    ) -> Self {
        Self {
            options,
            export_name: negotiated.name,
            opened,
            structured: negotiated.structured,
            allocation: negotiated.allocation,
            input: Input::new(reader),
            output: Output::new(writer),
            replies: ReplyWriter::new(negotiated.structured),
            running: FuturesUnordered::new(),
            lane,
            pace: Pace::default(),
            buffers: Buffers::default(),
            group: Group::default(),
            settling: 0,
            admitted: Admitted::default(),
            stage: Stage::Header,
            ending: None,
            complained: false,
        }
    }

    /// From the first request to the last answer.
    pub(super) async fn run(
        mut self,
        registration: Registration<'_>,
    ) -> Result<SessionEnd, SessionError> {
        if self.opened.export.revoked() {
            self.ending = Some(Ending::Revoked);
        }
        let mut stopped = pin!(registration.stopped());
        let mut told = false;
        loop {
            self.advance();
            self.settle();
            if self.ending.is_some() && self.running.is_empty() {
                break;
            }
            let takes_more = self.ending.is_none() && !matches!(self.stage, Stage::Waiting(..));
            let answers = !self.output.is_empty() && !self.is_gone();
            // Completions come first, so that all that are ready leave in one system call.
            tokio::select! {
                biased;
                Some(done) = self.running.next(), if !self.running.is_empty() => match done {
                    Done::Request(cost, finished) => self.finish(cost, finished),
                    Done::Settled(waiting, outcome) => self.settled(waiting, outcome),
                },
                sent = self.output.send(|cost| self.admitted.release(cost)), if answers => {
                    if let Err(error) = sent {
                        self.ending = Some(Ending::Gone(Some(SessionError::Stream(error))));
                    }
                }
                () = &mut stopped, if self.ending.is_none() && !told => {
                    told = true;
                    self.stop();
                }
                filled = self.input.fill(), if takes_more => match filled {
                    Ok(true) => {}
                    Ok(false) => self.ending = Some(Ending::Gone(None)),
                    Err(error) => {
                        self.ending = Some(Ending::Gone(Some(SessionError::Stream(error))));
                    }
                },
            }
        }
        // From here on no request is in flight: whoever takes authority away may go on, however
        // slowly this client takes its last answers.
        drop(registration);
        self.farewell().await
    }

    fn is_gone(&self) -> bool {
        matches!(self.ending, Some(Ending::Gone(_)))
    }

    /// Told by the server to stop: by a revocation, or for other reasons.
    fn stop(&mut self) {
        let revoked = self.opened.export.revoked();
        self.ending = Some(if revoked { Ending::Revoked } else { Ending::Disconnected });
        self.refuse_what_is_here();
    }

    /// Takes in as many requests as are there and have room.
    fn advance(&mut self) {
        while self.ending.is_none() {
            self.stage = match self.stage {
                Stage::Header => match self.input.request() {
                    Ok(Some(request)) => Stage::Waiting(request, self.judge(&request)),
                    Ok(None) => return,
                    Err(violation) => {
                        self.ending = Some(Ending::Broken(SessionError::Protocol(violation)));
                        return;
                    }
                },
                Stage::Waiting(request, verdict) => {
                    if self.opened.export.revoked() {
                        self.ending = Some(Ending::Revoked);
                        self.refuse_what_is_here();
                        return;
                    }
                    match self.admit(request, verdict) {
                        Some(stage) => stage,
                        None => return,
                    }
                }
                Stage::Payload(request, operation) => match self.input.payload() {
                    Some(payload) => {
                        self.start(&request, operation, payload);
                        Stage::Header
                    }
                    None => return,
                },
                Stage::Skip(request, errno, message) => {
                    if !self.input.skipped() {
                        return;
                    }
                    self.push_error(request.cookie, errno, message, cost_of(&request, None));
                    Stage::Header
                }
            };
        }
    }

    fn judge(&self, request: &Request) -> Verdict {
        judge(request, &self.opened.facts, self.structured, self.allocation)
    }

    /// Takes room for a request; `None` when there is none, or no request follows.
    fn admit(&mut self, request: Request, verdict: Verdict) -> Option<Stage> {
        let operation = match verdict {
            Verdict::Disconnect => {
                self.ending = Some(Ending::Left);
                return None;
            }
            Verdict::Run(operation) => Some(operation),
            Verdict::Refuse(..) => None,
        };
        let cost = cost_of(&request, operation);
        if !self.admitted.has_room(cost, &self.options) {
            return None;
        }
        self.admitted.add(cost);
        let payload = request.payload_bytes() as usize;
        match verdict {
            Verdict::Refuse(errno, message) => {
                self.input.expect_skip(payload);
                Some(Stage::Skip(request, errno, message))
            }
            Verdict::Run(operation @ Operation::Write { .. }) => {
                self.input.expect_payload(payload);
                Some(Stage::Payload(request, operation))
            }
            Verdict::Run(operation) => {
                self.start(&request, operation, Bytes::new());
                Some(Stage::Header)
            }
            Verdict::Disconnect => None,
        }
    }

    fn start(&mut self, request: &Request, operation: Operation, payload: Bytes) {
        let cost = cost_of(request, Some(operation));
        if self.carry_out_here(request, operation, &payload, cost) {
            return;
        }
        let export = self.opened.export.clone();
        let cookie = request.cookie;
        self.running.push(Box::pin(async move {
            Done::Request(cost, carry_out(export.as_ref(), cookie, operation, payload).await)
        }));
    }

    /// Answers a request that the export has carried out, or failed to.
    fn finish(&mut self, cost: Cost, finished: Finished) {
        let Finished { cookie, effect, outcome } = finished;
        if self.revoked_by_now() {
            return self.refuse_revoked(cookie, cost);
        }
        match outcome {
            Ok(answer) => self.answer(cookie, answer, cost),
            Err(error) => self.fail(cookie, effect, &error, cost),
        }
    }

    /// Looks once more before an answer. A write may have come in just before the authority went,
    /// or not: ESHUTDOWN claims nothing about it.
    fn revoked_by_now(&mut self) -> bool {
        let revoked = self.opened.export.revoked();
        if revoked && self.ending.is_none() {
            self.ending = Some(Ending::Revoked);
            self.refuse_what_is_here();
        }
        revoked
    }

    fn refuse_revoked(&mut self, cookie: u64, cost: Cost) {
        self.push_error(cookie, Errno::Shutdown, &ExportError::Revoked.to_string(), cost);
    }

    fn answer(&mut self, cookie: u64, answer: Answer, cost: Cost) {
        let (head, data) = match answer {
            Answer::Done => (self.replies.done(cookie), None),
            Answer::Data { offset, length, data } => {
                (self.replies.data(cookie, offset, length), Some(data))
            }
            Answer::Status(extents) => (self.replies.status(cookie, &extents), None),
        };
        self.output.push(&head, data, cost);
    }

    fn fail(&mut self, cookie: u64, effect: Effect, error: &ExportError, cost: Cost) {
        if matches!(error, ExportError::Io(_)) && !self.complained {
            self.complained = true;
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::warn!(
                export = self.export_name,
                error,
                "a request failed; further failures of this session are not logged"
            );
        }
        self.push_error(cookie, effect.errno(error), &error.to_string(), cost);
    }

    fn push_error(&mut self, cookie: u64, errno: Errno, message: &str, cost: Cost) {
        let head = self.replies.error(cookie, errno, message);
        self.output.push(&head, None, cost);
    }

    /// Answers ESHUTDOWN to requests that were read and not begun. They are few: what was read
    /// ahead, and no more. Called once, when the session comes to its end: afterwards the input may
    /// stand within a payload.
    fn refuse_what_is_here(&mut self) {
        const MESSAGE: &str = "the server ended this session";
        // Their places are not counted: nothing more is admitted.
        let nothing = Cost::NOTHING;
        let begun = match self.stage {
            Stage::Header => None,
            // The room that was taken for these is not needed again: nothing more is admitted.
            Stage::Waiting(request, _) | Stage::Payload(request, _) | Stage::Skip(request, ..) => {
                Some(request)
            }
        };
        if let Some(request) = begun {
            self.push_error(request.cookie, Errno::Shutdown, MESSAGE, nothing);
            if request.payload_bytes() > 0 {
                // Requests behind this payload are not in sight.
                return;
            }
        }
        while let Ok(Some(request)) = self.input.request() {
            if request.command == Command::Disconnect {
                return;
            }
            self.push_error(request.cookie, Errno::Shutdown, MESSAGE, nothing);
            if request.payload_bytes() > 0 {
                return;
            }
        }
    }

    /// Hands over the last answers, within the time for it.
    async fn farewell(mut self) -> Result<SessionEnd, SessionError> {
        let end = match self.ending {
            Some(Ending::Gone(error)) => return error.map_or(Ok(SessionEnd::ClientLeft), Err),
            Some(Ending::Broken(error)) => Err(error),
            Some(Ending::Revoked) => Ok(SessionEnd::Revoked),
            Some(Ending::Disconnected) => Ok(SessionEnd::Disconnected),
            Some(Ending::Left) | None => Ok(SessionEnd::ClientLeft),
        };
        // After its farewell a client sends nothing more that would have to be drained.
        let left = matches!(end, Ok(SessionEnd::ClientLeft));
        let handing_over = async {
            if self.output.finish().await.is_ok() && !left {
                self.input.drain().await;
            }
        };
        // A client that takes longer forgoes the answers; it is told nothing false, only nothing.
        let _ = timeout(self.options.farewell_time_max, handing_over).await;
        end
    }
}

/// What a request takes of the connection's bounds. Refusals cost a place, so that a client that
/// asks nonsense and never reads the answers is stopped as well.
fn cost_of(request: &Request, operation: Option<Operation>) -> Cost {
    let bytes = match operation {
        Some(Operation::Read { length, .. } | Operation::Write { length, .. }) => length as usize,
        // Sixteen bytes for each extent in memory, at the smallest unit of the disk: bounded by the
        // span.
        Some(Operation::Status { .. }) => crate::proto::limits::EXTENTS_MAX * 16,
        // One piece at a time.
        Some(Operation::Cache { .. }) => 1 << 20,
        Some(Operation::Zero { .. } | Operation::Trim { .. } | Operation::Flush) | None => 0,
    };
    Cost { requests: 1, bytes: bytes + std::mem::size_of_val(request) }
}
