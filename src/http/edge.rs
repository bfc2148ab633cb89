//! What happens to a request before anybody else looks at it: who really sends it, and how long its body may take.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{FORWARDED, HeaderName};
use async_stream::stream;
use futures_util::StreamExt;

use crate::domain::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HEADERS: [HeaderName; 4] = [
    FORWARDED,
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    /// The proxies whose `X-Forwarded-…` are believed; everybody else's are not even seen.
    pub trusted: Arc<[Network]>,
    /// Longest time that a whole body may take to arrive.
    pub body_time: Duration,
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

    /// A body that trickles in for too long ends in an error.
    fn limit_body(&self, request: &mut ServiceRequest) {
        if matches!(request.parts_mut().1, Payload::None) {
            return;
        }
        let mut payload = request.take_payload();
        let until = tokio::time::Instant::now() + self.body_time;
        let limited = stream! {
            loop {
                match tokio::time::timeout_at(until, payload.next()).await {
                    Ok(Some(piece)) => yield piece,
                    Ok(None) => return,
                    Err(_) => {
                        yield Err(PayloadError::Io(std::io::ErrorKind::TimedOut.into()));
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
        Edge { trusted: Arc::new(trusted), body_time: Duration::from_millis(50) }
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
