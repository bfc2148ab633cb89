//! Carries a rule out: silence, wrong answers, half answers, slow bodies, closed connections.

use std::any::Any;
use std::net::Shutdown;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{self, BodySize, MessageBody as _, SizedStream};
use actix_web::dev::Extensions;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::rt::net::TcpStream;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::behaviour::{Action, Stage};
use super::{Sandbox, answers};

/// Longest silence.
const LONGEST_HANG: Duration = Duration::from_mins(10);
/// Largest answer that is halved or slowed.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// In how many pieces a slow body comes.
const PIECES: u32 = 20;

/// The connection under a request, so that it can be closed without an answer.
#[derive(Debug)]
struct Connection(std::net::TcpStream);

/// Keeps a hold of each new connection; for the server's `on_connect`.
pub fn remember_connection(connection: &dyn Any, data: &mut Extensions) {
    let encrypted = || connection.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
    let stream = connection.downcast_ref::<TcpStream>().or_else(encrypted);
    if let Some(twin) = stream.and_then(|stream| twin(stream).ok()) {
        data.insert(Connection(twin));
    }
}

#[cfg(unix)]
fn twin(stream: &TcpStream) -> std::io::Result<std::net::TcpStream> {
    use std::os::fd::AsFd as _;
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn twin(stream: &TcpStream) -> std::io::Result<std::net::TcpStream> {
    use std::os::windows::io::AsSocket as _;
    Ok(stream.as_socket().try_clone_to_owned()?.into())
}

/// The answer of a call that knows neither endpoint nor prompt, unless a rule spoils it.
pub async fn unless_spoiled(
    request: &HttpRequest,
    sandbox: &Sandbox,
    stage: Stage,
    answer: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let action = sandbox.rules.take(stage, None, "");
    obey(request, sandbox, action, answer).await
}

/// Gives the true answer, or what the rule makes of it. Unless the rule says `after`, a replaced answer's call has no
/// effect: `answer` is not run.
pub async fn obey(
    request: &HttpRequest,
    sandbox: &Sandbox,
    action: Option<Action>,
    answer: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let Some(action) = action else {
        return answer.await;
    };
    sandbox.tally.counts().misbehaviours += 1;
    let replaced = action.status.is_some() || action.drop_connection;
    let truth = if replaced && !action.after { None } else { Some(answer.await) };
    tokio::time::sleep(Duration::from_millis(action.hang_ms).min(LONGEST_HANG)).await;
    if action.drop_connection {
        if let Some(connection) = request.conn_data::<Connection>() {
            let _ = connection.0.shutdown(Shutdown::Both);
        }
        return HttpResponse::ServiceUnavailable().finish();
    }
    let answer = match (truth, action.status) {
        (Some(truth), None) => truth,
        (_, status) => replacement(status.unwrap_or(500), &action),
    };
    if action.half_answer {
        halved(answer).await
    } else if let Some(duration) = action.slow_body_ms {
        slowed(answer, Duration::from_millis(duration).min(LONGEST_HANG)).await
    } else {
        answer
    }
}

fn replacement(status: u16, action: &Action) -> HttpResponse {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match &action.body {
        Some(Value::String(text)) => HttpResponse::build(code).content_type("text/plain").body(text.clone()),
        Some(body) => answers::json(status, body),
        None => answers::json(status, &json!({"detail": code.canonical_reason().unwrap_or("error")})),
    };
    for (name, value) in &action.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Head and body apart, the body whole.
async fn taken_apart(answer: HttpResponse) -> (HttpResponse, Bytes) {
    let (head, body) = answer.into_parts();
    let bytes = match body.size() {
        BodySize::None => Bytes::new(),
        _ => match body::to_bytes_limited(body, MOST_BYTES).await {
            Ok(Ok(bytes)) => bytes,
            _ => Bytes::new(),
        },
    };
    (head.set_body(()).map_into_boxed_body(), bytes)
}

async fn halved(answer: HttpResponse) -> HttpResponse {
    let (head, bytes) = taken_apart(answer).await;
    let half = bytes.slice(..bytes.len() / 2);
    let half = stream::once(async { Ok(half) });
    // The pause lets the half go out before the connection is closed.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("half an answer, as a rule asked for"))
    });
    head.set_body(SizedStream::new(length(&bytes), half.chain(broken))).map_into_boxed_body()
}

async fn slowed(answer: HttpResponse, duration: Duration) -> HttpResponse {
    let (head, bytes) = taken_apart(answer).await;
    let size = bytes.len().div_ceil(PIECES as usize).max(1);
    let pieces = stream::unfold(bytes.clone(), move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(duration / PIECES).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok::<_, std::io::Error>(piece), rest))
    });
    head.set_body(SizedStream::new(length(&bytes), pieces)).map_into_boxed_body()
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
