//! Multipart forms, read part by part within a limit.

use actix_multipart::{Multipart, MultipartError};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use futures_util::TryStreamExt as _;

use crate::http::{Code, Problem};

/// Most parts of a form.
const MOST_PARTS: usize = 200;

/// One part of a form.
pub struct Part {
    /// The field.
    pub name: String,
    /// What the client calls the file, if it is one.
    pub file_name: Option<String>,
    /// The content.
    pub bytes: web::BytesMut,
}

/// Whether the request is a form; if not, `hint` says where else it could go.
pub fn expect_form(request: &HttpRequest, hint: &str) -> Result<(), Problem> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        return Ok(());
    }
    let message = format!("this path takes `Content-Type: multipart/form-data`; {hint}");
    Err(Problem::new(Code::UnsupportedMediaType, message))
}

/// Gives `take` every part in its order, as it arrives; together they have at most `limit` bytes. What `take` refuses is
/// told once the form has ended, unless the form itself is at fault: the rest is read, but neither kept nor taken.
pub async fn read_parts(
    mut form: Multipart,
    limit: usize,
    mut take: impl FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut taken = Ok(());
    let (mut parts, mut room) = (0, limit);
    while let Some(mut part) = form.try_next().await.map_err(|fault| unreadable(&fault))? {
        if parts == MOST_PARTS {
            return Err(Problem::new(Code::InvalidRequest, format!("a form has at most {MOST_PARTS} parts")));
        }
        parts += 1;
        let name = part.name().unwrap_or_default().to_owned();
        let disposition = part.content_disposition();
        let file_name = disposition.and_then(|disposition| disposition.get_filename()).map(str::to_owned);
        let mut bytes = web::BytesMut::new();
        while let Some(piece) = part.try_next().await.map_err(|fault| unreadable(&fault))? {
            room = room
                .checked_sub(piece.len())
                .ok_or_else(|| Problem::new(Code::PayloadTooLarge, "the form is larger than this gateway takes"))?;
            if taken.is_ok() {
                bytes.extend_from_slice(&piece);
            }
        }
        if taken.is_ok() {
            taken = take(Part { name, file_name, bytes });
        }
    }
    taken
}

fn unreadable(fault: &MultipartError) -> Problem {
    if let MultipartError::Payload(error) = fault {
        return Problem::from_payload_error(error);
    }
    Problem::new(Code::InvalidRequest, format!("the form cannot be read: {fault}"))
}
