//! Multipart forms, read part by part.

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

/// Reads the parts of a form in their order, as they arrive.
pub struct PartReader {
    form: Multipart,
    parts: usize,
}

impl PartReader {
    /// Reads the form that is the body of this request, which has as many bytes as a body may have.
    #[must_use]
    pub fn new(request: &HttpRequest, payload: web::Payload) -> Self {
        Self { form: Multipart::new(request.headers(), payload), parts: 0 }
    }

    /// The next part; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Part>, Problem> {
        let Some(mut part) = self.form.try_next().await.map_err(|error| unreadable(&error))? else { return Ok(None) };
        if self.parts == MOST_PARTS {
            return Err(Problem::new(Code::InvalidRequest, format!("a form has at most {MOST_PARTS} parts")));
        }
        self.parts += 1;
        let name = part.name().unwrap_or_default().to_owned();
        let disposition = part.content_disposition();
        let file_name = disposition.and_then(|disposition| disposition.get_filename()).map(str::to_owned);
        let mut bytes = web::BytesMut::new();
        while let Some(piece) = part.try_next().await.map_err(|error| unreadable(&error))? {
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(Part { name, file_name, bytes }))
    }
}

fn unreadable(error: &MultipartError) -> Problem {
    if let MultipartError::Payload(error) = error {
        return Problem::from_payload_error(error);
    }
    Problem::new(Code::InvalidRequest, format!("the form cannot be read: {error}"))
}
