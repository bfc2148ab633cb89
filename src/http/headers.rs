//! Headers that two components could read in two ways are refused before anything reads them.

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING,
    UPGRADE,
};

use super::problem::{Code, Problem};

/// Headers of which a request has at most one: of two, one component would read the first and another the last.
const SINGLE: [HeaderName; 8] = [
    HOST,
    AUTHORIZATION,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-fal-target-url"),
];
/// Most bytes of a request's address and headers. What the server itself allows depends on how fast they arrive:
/// anything between 128 and 256 KiB over HTTP/1.1, megabytes over HTTP/2.
const LARGEST_HEAD: usize = 64 * 1024;
/// Longest host with its port, in bytes.
const LONGEST_HOST: usize = 260;

/// Refuses a request whose headers are ambiguous, or whose body could not be read.
pub(super) fn check_headers(request: &ServiceRequest) -> Result<(), Problem> {
    if head_size(request) > LARGEST_HEAD {
        let message = format!("the request's address and headers have more than {LARGEST_HEAD} bytes");
        return Err(Problem::new(Code::HeadersTooLarge, message));
    }
    let headers = request.headers();
    if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).count() > 1) {
        let message = format!("the header `{name}` is given more than once");
        return Err(Problem::new(Code::InvalidRequest, message));
    }
    for name in [HOST, HeaderName::from_static("x-forwarded-host")] {
        if headers.get(&name).is_some_and(|value| !is_host(value.as_bytes())) {
            return Err(Problem::new(
                Code::InvalidRequest,
                format!("the header `{name}` is not a host name with a port"),
            ));
        }
    }
    check_encoding(headers)?;
    let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if is_websocket(headers) && (has_body || request.method() != Method::GET) {
        // The server reads such a body until the connection ends, whatever length it says.
        let message = "this gateway does not switch protocols: leave out the header `upgrade`";
        return Err(Problem::new(Code::InvalidRequest, message));
    }
    Ok(())
}

/// The bytes of the address and of the headers, with two separators each.
fn head_size(request: &ServiceRequest) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let uri = request.uri();
    uri.path().len() + uri.query().map_or(0, str::len) + headers.sum::<usize>()
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(()) };
    let value = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    if value.is_empty() || value == "identity" {
        return Ok(());
    }
    let message = format!("bodies with `Content-Encoding: {value}` are not supported; send the body as it is");
    Err(Problem::new(Code::UnsupportedMediaType, message).header("accept-encoding", "identity"))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get_all(UPGRADE)
        .any(|value| value.as_bytes().to_ascii_lowercase().windows(9).any(|part| part == b"websocket"))
}

/// A name or an address, and perhaps a port: nothing that would read differently within a link.
fn is_host(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    value.len() <= LONGEST_HOST && value.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<(), u16> {
        let mut request = TestRequest::post();
        for (name, value) in pairs {
            request = request.append_header((*name, *value));
        }
        check_headers(&request.to_srv_request()).map_err(|problem| problem.code().status().as_u16())
    }

    #[test]
    fn what_is_given_twice_is_refused() {
        for name in SINGLE {
            let name = name.as_str();
            if name != "content-encoding" {
                assert_eq!(check(&[(name, "a")]), Ok(()), "{name}");
            }
            assert_eq!(check(&[(name, "identity"), (name, "identity")]), Err(400), "{name}");
        }
        assert_eq!(check(&[("accept", "a"), ("accept", "b")]), Ok(()));
    }

    #[test]
    fn a_host_is_a_host() {
        for host in ["a.example", "a.example:8080", "127.0.0.1", "[::1]:8080", ""] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["a/b", "a@b", "a b", "a?b", "a#b", "a,b", "é"] {
            assert_eq!(check(&[("host", host)]), Err(400), "{host}");
            assert_eq!(check(&[("x-forwarded-host", host)]), Err(400), "{host}");
        }
    }

    #[test]
    fn an_encoded_body_is_not_supported() {
        assert_eq!(check(&[("content-encoding", "identity")]), Ok(()));
        for encoding in ["gzip", "br", "deflate, gzip", "GZIP"] {
            assert_eq!(check(&[("content-encoding", encoding)]), Err(415), "{encoding}");
        }
    }

    #[test]
    fn a_body_beside_a_websocket_upgrade_is_refused_and_another_upgrade_ignored() {
        assert_eq!(check(&[("upgrade", "websocket"), ("content-length", "2")]), Err(400));
        assert_eq!(check(&[("connection", "upgrade"), ("upgrade", "WebSocket")]), Err(400));
        assert_eq!(check(&[("upgrade", "h2c"), ("content-length", "2")]), Ok(()));
    }
}
