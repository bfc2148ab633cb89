//! What happens to a request before anybody else looks at it: who really sends it, and how long its body may take and how
//! much memory.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, FORWARDED, HeaderName};
use actix_web::{HttpMessage, HttpRequest};
use async_stream::stream;
use futures_util::StreamExt;

use crate::domain::{MEMORY_OF_BODY, MemoryBudget, MemoryShare, MemoryUse, Network, OutOfMemory, ProjectId};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HEADERS: [HeaderName; 4] = [
    FORWARDED,
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Whom to believe, and what a body may take.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The proxies whose `X-Forwarded-…` are believed; everybody else's are not even seen.
    pub trusted: Arc<[Network]>,
    /// Longest time that a whole body may take to arrive.
    pub body_time: Duration,
    /// Largest body, in bytes.
    pub body_limit: usize,
    /// Where the memory for bodies comes from.
    pub memory: MemoryBudget,
}

/// The memory that a request's body takes; in the request's extensions. It is reserved before the body is read, which is after
/// the caller is known.
#[derive(Debug, Clone)]
pub struct BodyMemory(Rc<RefCell<BodyMemoryState>>);

#[derive(Debug)]
struct BodyMemoryState {
    budget: MemoryBudget,
    /// The most that the body may have, in bytes.
    limit: u64,
    /// `Content-Length`.
    announced: Option<u64>,
    /// How many bytes the body has, as far as is known.
    bytes: u64,
    project: Option<ProjectId>,
    share: Option<MemoryShare>,
}

impl BodyMemory {
    /// Says whose request it is.
    pub fn belongs_to(&self, project: ProjectId) {
        self.0.borrow_mut().project = Some(project);
    }

    /// The share of a request's body, for whoever goes on with what the body said; nothing where none was read.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Option<MemoryShare> {
        request.extensions().get::<Self>().and_then(Self::take)
    }

    /// How long the body is by `Content-Length`; `None` where a body comes without it.
    #[must_use]
    pub fn announced(request: &HttpRequest) -> Option<u64> {
        request.extensions().get::<Self>().map_or(Some(0), |memory| memory.0.borrow().announced)
    }

    fn take(&self) -> Option<MemoryShare> {
        self.0.borrow_mut().share.take()
    }

    /// Reserves the memory for the body of a request before it is read, as far as its length is announced. Errors if it is too
    /// large, or if there is not so much memory now.
    pub fn reserve_for(request: &HttpRequest) -> Result<(), PayloadError> {
        request.extensions().get::<Self>().map_or(Ok(()), |memory| memory.reserve(0))
    }

    fn new(budget: MemoryBudget, limit: u64, announced: Option<u64>) -> Self {
        let bytes = announced.unwrap_or(0);
        Self(Rc::new(RefCell::new(BodyMemoryState { budget, limit, announced, bytes, project: None, share: None })))
    }

    /// Reserves memory for what is announced, and for a body of this length if that is more.
    fn reserve(&self, length: u64) -> Result<(), PayloadError> {
        let state = &mut *self.0.borrow_mut();
        state.bytes = state.bytes.max(length);
        if state.bytes > state.limit {
            return Err(PayloadError::Overflow);
        }
        let refused = |error: OutOfMemory| PayloadError::Io(io::Error::other(error));
        let bytes = state.bytes.saturating_mul(MEMORY_OF_BODY);
        if let Some(share) = &mut state.share {
            return share.grow(bytes.saturating_sub(share.bytes())).map_err(refused);
        }
        state.share = Some(state.budget.reserve(MemoryUse::Input, state.project, bytes).map_err(refused)?);
        Ok(())
    }
}

/// Whether the process is about to stop: told by readiness, and connections are not kept.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// From now on.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Edge {
    /// Gives the request the address of who really sent it, and its body a limit in time.
    pub fn receive(&self, request: &mut ServiceRequest) {
        let peer = request.peer_addr().map(|peer| peer.ip());
        if peer.is_some_and(|peer| self.trusts(peer)) {
            if let Some(client) = self.client(request) {
                request.head_mut().peer_addr = Some(SocketAddr::new(client, 0));
            }
        } else {
            for name in FORWARDED_HEADERS {
                request.headers_mut().remove(name);
            }
        }
        self.limit_body(request);
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The last address of `X-Forwarded-For` that no trusted proxy has: those before it could be made up.
    fn client(&self, request: &ServiceRequest) -> Option<IpAddr> {
        let values: Vec<&str> =
            request.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok()).collect();
        let hops = values.iter().flat_map(|value| value.split(',')).map(|hop| hop.trim().parse::<IpAddr>());
        let hops: Vec<_> = hops.collect();
        hops.into_iter().rev().map_while(Result::ok).find(|hop| !self.trusts(*hop))
    }

    /// A body that trickles in for too long, is too large, or for which there is no memory now, ends in an error. Memory for
    /// all that is announced is taken before the first byte is read.
    fn limit_body(&self, request: &mut ServiceRequest) {
        if matches!(request.parts_mut().1, Payload::None) {
            return;
        }
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let memory = BodyMemory::new(self.memory.clone(), self.body_limit as u64, announced);
        request.extensions_mut().insert(memory.clone());
        let mut payload = request.take_payload();
        let until = tokio::time::Instant::now() + self.body_time;
        let limited = stream! {
            if let Err(error) = memory.reserve(0) {
                yield Err(error);
                return;
            }
            let mut arrived = 0;
            loop {
                match tokio::time::timeout_at(until, payload.next()).await {
                    Ok(Some(Ok(piece))) => {
                        arrived += piece.len() as u64;
                        if let Err(error) = memory.reserve(arrived) {
                            yield Err(error);
                            return;
                        }
                        yield Ok(piece);
                    }
                    Ok(Some(Err(error))) => yield Err(error),
                    Ok(None) => return,
                    Err(_) => {
                        yield Err(PayloadError::Io(io::ErrorKind::TimedOut.into()));
                        return;
                    }
                }
            }
        };
        request.set_payload(Payload::Stream { payload: Box::pin(limited) });
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn edge() -> Edge {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        Edge {
            trusted: Arc::new(trusted),
            body_time: Duration::from_millis(50),
            body_limit: 1_000,
            memory: MemoryBudget::new(8_000, 4_000),
        }
    }

    /// Whether a body of this length, announced or not, can be read by a project; with the memory that it takes.
    async fn reads(
        edge: &Edge,
        project: u128,
        length: usize,
        announced: bool,
    ) -> (Result<usize, PayloadError>, BodyMemory) {
        let mut request = TestRequest::post();
        if announced {
            request = request.insert_header((CONTENT_LENGTH, length.to_string()));
        }
        let mut request = request.set_payload(vec![0; length]).to_srv_request();
        if !announced {
            request.headers_mut().remove(CONTENT_LENGTH);
        }
        edge.receive(&mut request);
        let memory = request.extensions().get::<BodyMemory>().cloned().unwrap();
        memory.belongs_to(ProjectId::from_uuid(uuid::Uuid::from_u128(project)));
        let mut payload = request.take_payload();
        let mut read = 0;
        while let Some(piece) = payload.next().await {
            match piece {
                Ok(piece) => read += piece.len(),
                Err(error) => return (Err(error), memory),
            }
        }
        (Ok(read), memory)
    }

    #[actix_web::test]
    async fn a_body_takes_memory_before_it_is_read_and_as_long_as_somebody_needs_it() {
        let edge = edge();
        for announced in [true, false] {
            let (read, memory) = reads(&edge, 1, 900, announced).await;
            assert_eq!((read.unwrap(), edge.memory.used()), (900, 3_600));
            // The same project has half of the budget.
            let (refused, _) = reads(&edge, 1, 101, announced).await;
            assert!(matches!(refused, Err(PayloadError::Io(_))), "{refused:?}");
            let (other, _) = reads(&edge, 2, 500, announced).await;
            assert_eq!(other.unwrap(), 500);
            let share = memory.take().unwrap();
            drop(memory);
            assert_eq!(edge.memory.used(), 3_600);
            drop(share);
            assert_eq!(edge.memory.used(), 0);
        }
    }

    #[actix_web::test]
    async fn a_body_above_the_limit_is_refused_whether_or_not_it_announces_its_length() {
        for announced in [true, false] {
            assert!(matches!(reads(&edge(), 1, 1_001, announced).await.0, Err(PayloadError::Overflow)));
            assert_eq!(reads(&edge(), 1, 1_000, announced).await.0.unwrap(), 1_000);
        }
    }

    fn sender(peer: &str, forwarded: &str) -> (String, bool) {
        let request = TestRequest::get().peer_addr(SocketAddr::new(peer.parse().unwrap(), 9));
        let mut request = request.insert_header(("x-forwarded-for", forwarded)).to_srv_request();
        edge().receive(&mut request);
        (request.peer_addr().unwrap().ip().to_string(), request.headers().contains_key("x-forwarded-for"))
    }

    #[actix_web::test]
    async fn only_a_trusted_proxy_says_who_the_client_is() {
        assert_eq!(sender("10.1.1.1", "203.0.113.7"), ("203.0.113.7".into(), true));
        assert_eq!(sender("10.1.1.1", "1.1.1.1, 203.0.113.7, 10.9.9.9"), ("203.0.113.7".into(), true));
        assert_eq!(sender("198.51.100.1", "203.0.113.7"), ("198.51.100.1".into(), false));
        assert_eq!(sender("10.1.1.1", "nonsense"), ("10.1.1.1".into(), true));
    }

    #[actix_web::test]
    async fn a_body_that_trickles_ends_in_an_error() {
        let mut request = TestRequest::post().set_payload("x").to_srv_request();
        request.set_payload(Payload::Stream { payload: Box::pin(futures_util::stream::pending()) });
        edge().receive(&mut request);
        let piece = request.take_payload().next().await.unwrap();
        assert!(matches!(piece, Err(PayloadError::Io(_))), "{piece:?}");
    }
}
