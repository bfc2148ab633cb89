//! The server under the routes. It is put together here, and not by `actix_web::HttpServer`, so that requests which
//! HTTP's parser refuses are logged with the address that they came from: no handler or middleware ever sees them.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long an idle connection is kept, so that clients need not connect for each image.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Longest time that a request's headers may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Longest time that a closing connection may take.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// Most connections that one worker (one for each core) keeps; more wait to be taken.
const CONNECTIONS: usize = 25_000;

/// Serves `app` on a listener. `stop` ends idle connections when the server is told to stop; what runs then has
/// `shutdown` to finish.
pub fn serve<F, I, S, B>(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    shutdown: Duration,
    stop: CancellationToken,
    app: F,
) -> std::io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let listener = listener.into_std()?;
    let address = listener.local_addr()?;
    let is_secure = tls.is_some();
    // A closure could not serve both: the service's type names the kind of connection.
    macro_rules! http {
        () => {{
        let stop = stop.clone();
        let app = app().into_factory().map_err(|error| error.into().error_response());
        // The two hidden functions are those that `actix_web::HttpServer` and `actix-test` call for the same.
        let app = map_config(app, move |()| AppConfig::__priv_test_new(is_secure, address.to_string(), address));
        HttpService::build()
            .graceful_shutdown_signal(move || stop.clone().cancelled_owned())
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEADER_TIME)
            .client_disconnect_timeout(CLOSING_TIME)
            // A client that hangs up must be noticed: half-closed connections look the same until the answer is written.
            .h1_allow_half_closed(false)
            .local_addr(address)
            .finish(app)
        }};
    }
    let server = Server::build().max_concurrent_connections(CONNECTIONS).disable_signals();
    let server = server.shutdown_timeout(shutdown.as_secs());
    let server = match tls {
        None => server.listen("http", listener, move || Logged(http!().tcp()))?,
        Some(tls) => server.listen("https", listener, move || {
            Logged(http!().rustls_0_23(tls.clone()).map_err(|error| match error {
                actix_tls::accept::TlsError::Service(error) => error,
                actix_tls::accept::TlsError::Timeout => DispatchError::SlowRequestTimeout,
                actix_tls::accept::TlsError::Tls(error) => DispatchError::Io(error),
            }))
        })?,
    };
    Ok(server.run())
}

/// Logs what ends a connection, if HTTP's parser does.
struct Logged<S>(S);

impl<S> ServiceFactory<TcpStream> for Logged<S>
where
    S: ServiceFactory<TcpStream, Config = (), Error = DispatchError>,
    S::Future: 'static,
    <S::Service as Service<TcpStream>>::Future: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Config = ();
    type Service = Logged<S::Service>;
    type InitError = S::InitError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Service, S::InitError>>>>;

    fn new_service(&self, config: ()) -> Self::Future {
        let service = self.0.new_service(config);
        Box::pin(async move { service.await.map(Logged) })
    }
}

impl<S> Service<TcpStream> for Logged<S>
where
    S: Service<TcpStream, Error = DispatchError>,
    S::Future: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>>>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&self, connection: TcpStream) -> Self::Future {
        let peer = connection.peer_addr().ok();
        let served = self.0.call(connection);
        Box::pin(async move {
            let outcome = served.await;
            if let Err(DispatchError::Parse(error)) = &outcome {
                log_refused(peer, error);
            }
            outcome
        })
    }
}

/// The answer was written by the server itself: 431 for headers that are too large, else 400, without a body.
fn log_refused(peer: Option<SocketAddr>, error: &actix_http::error::ParseError) {
    let client_address = peer.map(|peer| tracing::field::display(peer.ip()));
    let status = if matches!(error, actix_http::error::ParseError::TooLarge) { 431 } else { 400 };
    warn!(client_address, status, %error, "malformed HTTP request refused");
}
