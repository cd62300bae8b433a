//! Requests that go beside the log: pieces of a first copy, and questions for hashes.

use crate::limits::HASH_REQUESTS_MAX;
use crate::message::{Message, RequestId};
use crate::{HashReply, HashRequest, ImageData, Refusal};
use std::collections::BTreeMap;

/// What the owner of a sender asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Put a piece of a first copy into the image.
    Image(ImageData),
    /// Hashes of the newest content.
    Hash(HashRequest),
}

/// The answer to an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The piece is durable at the target, or why not.
    Image(Result<(), Refusal>),
    /// The hashes, or why there are none.
    Hash(Result<HashReply, Refusal>),
}

impl Ask {
    /// The answer that says no.
    #[must_use]
    pub const fn refuse(&self, refusal: Refusal) -> Answer {
        match self {
            Self::Image(_) => Answer::Image(Err(refusal)),
            Self::Hash(_) => Answer::Hash(Err(refusal)),
        }
    }

    fn message(&self, request: RequestId) -> Message {
        match self.clone() {
            Self::Image(piece) => Message::ImageData { request, piece },
            Self::Hash(ask) => Message::HashRequest { request, ask },
        }
    }

    /// What it takes of its lane's limit: bytes of data, or one.
    fn cost(&self) -> u64 {
        match self {
            Self::Image(piece) => piece.data.as_ref().map_or(0, bytes::Bytes::len) as u64,
            Self::Hash(_) => 1,
        }
    }
}

/// Unanswered requests. After a new connection all of them are sent again, in their order: a piece
/// may come twice, which is harmless, because no later piece of the same place was sent before it
/// was answered.
#[derive(Debug, Default)]
pub(super) struct Requests {
    images: Lane,
    hashes: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    pending: BTreeMap<RequestId, Pending>,
    /// Everything below was sent on this connection.
    next: RequestId,
    under_way: u64,
}

#[derive(Debug)]
struct Pending {
    ask: Ask,
    /// The owner no longer waits; kept until answered, because it still counts against the limit.
    cancelled: bool,
}

impl Requests {
    pub(super) fn add(&mut self, request: RequestId, ask: Ask) {
        let lane = match ask {
            Ask::Image(_) => &mut self.images,
            Ask::Hash(_) => &mut self.hashes,
        };
        lane.pending.insert(request, Pending { ask, cancelled: false });
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        self.images.cancel(request);
        self.hashes.cancel(request);
    }

    /// The connection is gone: all that is still wanted has to be sent again.
    pub(super) fn restart(&mut self) {
        self.images.restart();
        self.hashes.restart();
    }

    /// What may be said now.
    pub(super) fn ready(&mut self, image_window: u64, mut say: impl FnMut(Message)) {
        while let Some(message) = self.images.next(image_window) {
            say(message);
        }
        while let Some(message) = self.hashes.next(HASH_REQUESTS_MAX) {
            say(message);
        }
    }

    /// True when the owner waits for this answer; `Err` when nothing of the kind was asked on this
    /// connection.
    pub(super) fn answered(
        &mut self,
        request: RequestId,
        answer: &Answer,
    ) -> Result<bool, Refusal> {
        let lane = match answer {
            Answer::Image(_) => &mut self.images,
            Answer::Hash(_) => &mut self.hashes,
        };
        lane.answered(request)
    }

    /// Takes all out, to refuse them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (RequestId, Ask)> {
        let images = std::mem::take(&mut self.images);
        let hashes = std::mem::take(&mut self.hashes);
        let all = images.pending.into_iter().chain(hashes.pending);
        all.filter(|(_, pending)| !pending.cancelled)
            .map(|(request, pending)| (request, pending.ask))
    }
}

impl Lane {
    fn next(&mut self, limit: u64) -> Option<Message> {
        if self.under_way >= limit {
            return None;
        }
        let (request, pending) = self.pending.range(self.next..).next()?;
        self.next = RequestId(request.0 + 1);
        self.under_way += pending.ask.cost();
        Some(pending.ask.message(*request))
    }

    fn cancel(&mut self, request: RequestId) {
        if request >= self.next {
            self.pending.remove(&request);
        } else if let Some(pending) = self.pending.get_mut(&request) {
            pending.cancelled = true;
        }
    }

    fn restart(&mut self) {
        self.pending.retain(|_, pending| !pending.cancelled);
        self.next = RequestId::default();
        self.under_way = 0;
    }

    fn answered(&mut self, request: RequestId) -> Result<bool, Refusal> {
        let unasked = || Refusal::Protocol { detail: "an answer to what was not asked".into() };
        if request >= self.next {
            return Err(unasked());
        }
        let pending = self.pending.remove(&request).ok_or_else(unasked)?;
        self.under_way -= pending.ask.cost();
        Ok(!pending.cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use landfall_types::{DiskIndex, WindowId};

    fn image(len: usize) -> Ask {
        Ask::Image(ImageData {
            window: WindowId(1),
            disk: DiskIndex(0),
            offset: 0,
            length: len as u64,
            data: Some(Bytes::from(vec![1; len])),
        })
    }
    fn ready(requests: &mut Requests, window: u64) -> Vec<u64> {
        let mut sent = vec![];
        requests.ready(window, |message| match message {
            Message::ImageData { request, .. } => sent.push(request.0),
            other => panic!("{other:?}"),
        });
        sent
    }
    const DONE: Answer = Answer::Image(Ok(()));

    #[test]
    fn the_window_bounds_what_is_under_way_and_answers_open_it() {
        let mut requests = Requests::default();
        (1..=5).for_each(|n| requests.add(RequestId(n), image(10)));
        assert_eq!(ready(&mut requests, 25), [1, 2, 3], "less than the window may send one more");
        assert_eq!(ready(&mut requests, 25), [] as [u64; 0]);
        assert_eq!(requests.answered(RequestId(2), &DONE), Ok(true));
        assert_eq!(ready(&mut requests, 25), [4]);
        assert!(requests.answered(RequestId(2), &DONE).is_err(), "answered twice");
        assert!(requests.answered(RequestId(5), &DONE).is_err(), "not sent yet");
    }

    #[test]
    fn after_a_new_connection_all_unanswered_are_sent_again_in_order() {
        let mut requests = Requests::default();
        (1..=4).for_each(|n| requests.add(RequestId(n), image(10)));
        assert_eq!(ready(&mut requests, 30), [1, 2, 3]);
        assert_eq!(requests.answered(RequestId(1), &DONE), Ok(true));
        requests.cancel(RequestId(2));
        requests.restart();
        assert!(requests.answered(RequestId(3), &DONE).is_err(), "an answer of the old connection");
        assert_eq!(ready(&mut requests, 30), [3, 4]);
    }

    #[test]
    fn a_cancelled_request_still_counts_until_it_is_answered() {
        let mut requests = Requests::default();
        (1..=3).for_each(|n| requests.add(RequestId(n), image(10)));
        assert_eq!(ready(&mut requests, 10), [1]);
        requests.cancel(RequestId(1));
        requests.cancel(RequestId(2));
        assert_eq!(ready(&mut requests, 10), [] as [u64; 0]);
        assert_eq!(requests.answered(RequestId(1), &DONE), Ok(false));
        assert_eq!(ready(&mut requests, 10), [3]);
        assert_eq!(requests.drain().map(|(request, _)| request.0).collect::<Vec<_>>(), [3]);
    }
}
