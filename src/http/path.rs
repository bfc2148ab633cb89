//! The one reading of a request's path, made before anything else looks at it.
//!
//! A path means what it means decoded: every escape is resolved, an escaped slash included, and what is left is written
//! in one canonical form, which the router, the log and the traces see. What has more than one meaning is refused:
//! empty segments, `.` and `..`, backslashes, control characters, broken escapes, and bytes that are not UTF-8.

use actix_web::dev::ServiceRequest;
use actix_web::http::{Method, Uri};

/// First segments that belong to `/v1`; AIML's clients often leave the version out.
const VERSIONED: &[&str] = &["images", "models", "billing", "organization", "key", "keys", "assistants", "webhooks"];

/// First segments that belong to no version; clients whose base address ends in `/v1` ask for them below it.
const UNVERSIONED: &[&str] = &["healthz", "readyz", "metrics", "openapi.json", "docs", "admin"];

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` that is not followed by two hexadecimal digits")]
    BrokenEscape,
    /// The decoded bytes are no text.
    #[error("the path is not valid UTF-8")]
    NotUtf8,
    /// NUL, a line break and the like, or a backslash.
    #[error("the path has a control character or a backslash")]
    ForbiddenCharacter,
    /// Two slashes in a row.
    #[error("the path has an empty segment: write one slash between two segments")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    /// The canonical path is not accepted as a URI.
    #[error("the path is not a valid URI path")]
    NotAUri,
}

/// Gives the request the path that routes are registered under. `HEAD` is answered as `GET`; the server leaves the body
/// out by itself.
pub fn normalize(request: &mut ServiceRequest) -> Result<(), PathError> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let uri = request.uri();
    let path = canonical(uri.path())?;
    if path == uri.path() {
        return Ok(());
    }
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().map_err(|_| PathError::NotAUri)?);
    let uri = Uri::from_parts(parts).map_err(|_| PathError::NotAUri)?;
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
    Ok(())
}

/// The canonical form of a path.
fn canonical(path: &str) -> Result<String, PathError> {
    let decoded = decode(path)?;
    if decoded.chars().any(|character| character.is_control() || character == '\\') {
        return Err(PathError::ForbiddenCharacter);
    }
    let inner = decoded.strip_prefix('/').unwrap_or(&decoded);
    if inner.is_empty() {
        return Ok("/".to_owned());
    }
    let mut segments: Vec<&str> = inner.strip_suffix('/').unwrap_or(inner).split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return Err(PathError::EmptySegment);
    }
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(PathError::DotSegment);
    }
    if segments[0] == "v1" && segments.get(1).is_some_and(|second| UNVERSIONED.contains(second)) {
        segments.remove(0);
    } else if VERSIONED.contains(&segments[0]) || is_unversioned_upload(&segments) {
        segments.insert(0, "v1");
    }
    let mut canonical = String::with_capacity(path.len() + 3);
    for segment in segments {
        canonical.push('/');
        encode(segment, &mut canonical);
    }
    Ok(canonical)
}

/// `/files` and `/files/file-…` are the uploads of `/v1/files`; anything else below `/files` is a delivered image.
fn is_unversioned_upload(segments: &[&str]) -> bool {
    match segments {
        ["files"] => true,
        ["files", id, ..] => id.starts_with("file-"),
        _ => false,
    }
}

fn decode(path: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(PathError::BrokenEscape) };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(PathError::BrokenEscape) };
        bytes.push(high << 4 | low);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| PathError::NotUtf8)
}

/// Writes a segment with what RFC 3986 allows in one, and everything else escaped.
fn encode(segment: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathError::{BrokenEscape, DotSegment, EmptySegment, ForbiddenCharacter, NotUtf8};

    #[test]
    fn the_version_and_the_last_slash_may_be_left_out_or_not() {
        for path in ["/v1/images/generations", "/v1/images/generations/", "/images/generations", "/images/generations/"]
        {
            assert_eq!(canonical(path).unwrap(), "/v1/images/generations");
        }
        for (asked, found) in [
            ("/models/flux/dev", "/v1/models/flux/dev"),
            ("/admin/v1/generations/", "/admin/v1/generations"),
            ("/healthz", "/healthz"),
            ("/v1/healthz", "/healthz"),
            ("/v1/docs/", "/docs"),
            ("/v1/openapi.json", "/openapi.json"),
            ("/v1/admin/v1/generations", "/admin/v1/generations"),
            ("/v1/administrators", "/v1/administrators"),
            ("/files", "/v1/files"),
            ("/keys", "/v1/keys"),
            ("/files/file-1", "/v1/files/file-1"),
            ("/files/gen_1/0", "/files/gen_1/0"),
            ("/", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(canonical(asked).unwrap(), found, "{asked}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_has_one_canonical_form() {
        for path in [
            "/v1/models/flux/dev",
            "/v1/%6dodels/flux/dev",
            "/v1/%6Dodels/flux%2Fdev",
            "/%76%31/models%2fflux/dev",
            "/v1%2Fmodels/flux%2fdev/",
        ] {
            assert_eq!(canonical(path).unwrap(), "/v1/models/flux/dev", "{path}");
        }
        // Decoded once: what is escaped twice is data.
        assert_eq!(canonical("/v1/%256dodels").unwrap(), "/v1/%256dodels");
        assert_eq!(canonical("/v1/models/a%20b%2Bc+d:e@f").unwrap(), "/v1/models/a%20b+c+d:e@f");
        assert_eq!(canonical("/v1/models/%e5%9b%be").unwrap(), "/v1/models/%E5%9B%BE");
    }

    #[test]
    fn a_path_with_more_than_one_meaning_is_refused() {
        for (path, error) in [
            ("//", EmptySegment),
            ("/v1//models", EmptySegment),
            ("//v1/models", EmptySegment),
            ("/v1/models//", EmptySegment),
            ("/v1/models/%2f", EmptySegment),
            ("/v1/./models", DotSegment),
            ("/v1/models/../organization", DotSegment),
            ("/v1/models/%2e%2E/organization", DotSegment),
            ("/v1/models/a%2f..%2fb", DotSegment),
            ("/v1/models/%5c", ForbiddenCharacter),
            ("/v1/models/\\", ForbiddenCharacter),
            ("/v1/models%00", ForbiddenCharacter),
            ("/v1/models/%0d%0a", ForbiddenCharacter),
            ("/v1/models/%7f", ForbiddenCharacter),
            ("/v1/models/%", BrokenEscape),
            ("/v1/models/%4", BrokenEscape),
            ("/v1/models/%zz", BrokenEscape),
            ("/v1/models/%c0%af", NotUtf8),
            ("/v1/models/%ff", NotUtf8),
        ] {
            assert_eq!(canonical(path), Err(error), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_path_is_its_own_canonical_form(path in "/(%[0-9a-fA-F]{2}|[a-z0-9./%;+ é]){0,20}") {
            if let Ok(once) = canonical(&path) {
                proptest::prop_assert_eq!(canonical(&once).unwrap(), once);
            }
        }
    }
}
