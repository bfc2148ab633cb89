//! fal's storage: uploads in the two ways of its clients, and serving what was uploaded. In memory, bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::Sandbox;
use super::admission::base;
use super::answers::{self, Access, json};
use super::behaviour::Stage;
use super::misbehave::unless_spoiled;

/// Largest upload, in bytes; fal's clients send larger ones in parts, which the stand-in does not take.
const UPLOAD_LIMIT: usize = 100 * 1024 * 1024;
/// Bytes that all uploads may take together; the oldest give way.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// Most uploads held, announced ones included.
const MOST_UPLOADS: usize = 10_000;
/// How long a token is good, in seconds; told, not enforced.
const TOKEN_SECONDS: u64 = 3_600;

/// What was uploaded, the oldest first.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<VecDeque<Upload>>);

#[derive(Debug, Clone)]
struct Upload {
    /// The last part of its path.
    name: String,
    content_type: String,
    /// Absent until the bytes have come.
    bytes: Option<Bytes>,
}

impl Uploads {
    fn announce(&self, name: String, content_type: String) {
        self.keep(Upload { name, content_type, bytes: None });
    }

    fn keep(&self, upload: Upload) {
        let mut uploads = self.uploads();
        uploads.push_back(upload);
        let size = |upload: &Upload| upload.bytes.as_ref().map_or(0, Bytes::len);
        let mut bytes: usize = uploads.iter().map(size).sum();
        while bytes > MOST_BYTES || uploads.len() > MOST_UPLOADS {
            bytes -= uploads.pop_front().as_ref().map_or(0, size);
        }
    }

    /// Fills an announced upload; `false` if none was announced under that name.
    fn fill(&self, name: &str, content_type: Option<String>, bytes: Bytes) -> bool {
        let announced = {
            let mut uploads = self.uploads();
            let place = uploads.iter().position(|upload| upload.name == name);
            place.and_then(|place| uploads.remove(place))
        };
        let Some(mut upload) = announced else {
            return false;
        };
        if let Some(content_type) = content_type {
            upload.content_type = content_type;
        }
        upload.bytes = Some(bytes);
        self.keep(upload);
        true
    }

    /// Media type and bytes of the upload of that name.
    pub fn find(&self, name: &str) -> Option<(String, Bytes)> {
        let uploads = self.uploads();
        let upload = uploads.iter().find(|upload| upload.name == name)?;
        Some((upload.content_type.clone(), upload.bytes.clone()?))
    }

    /// Whether an upload of that name was announced and has not come.
    pub fn is_awaited(&self, name: &str) -> bool {
        let uploads = self.uploads();
        uploads.iter().any(|upload| upload.name == name && upload.bytes.is_none())
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.uploads().clear();
    }

    fn uploads(&self) -> MutexGuard<'_, VecDeque<Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `initiate` is told.
#[derive(Debug, Deserialize)]
pub struct Announcement {
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    file_name: Option<String>,
}

/// `POST /storage/upload/initiate`: where to put a file, and where it will lie.
pub async fn initiate(
    request: HttpRequest,
    announcement: web::Json<Announcement>,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Storage, async {
        if let Some(refused) = refuses(&request) {
            return refused;
        }
        let Announcement { content_type, file_name } = announcement.into_inner();
        let name = sandbox.upload_name(file_name.as_deref());
        let base = base(&request);
        let answer = json!({
            "file_url": file_url(&base, &name),
            "upload_url": format!("{base}/storage/upload/{name}"),
        });
        sandbox.uploads.announce(name, content_type.unwrap_or_else(octets));
        json(200, &answer)
    })
    .await
}

/// `PUT` of the bytes to the URL that `initiate` gave; wants no key, as the URL is the secret.
pub async fn put_upload(
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Storage, async {
        let Ok(Ok(bytes)) = payload.to_bytes_limited(UPLOAD_LIMIT).await else {
            return answers::too_large();
        };
        if !sandbox.uploads.fill(&name, content_type(&request), bytes) {
            return json(404, &json!({"detail": "Not Found"}));
        }
        sandbox.tally.counts().uploads += 1;
        HttpResponse::Ok().finish()
    })
    .await
}

/// `POST /storage/auth/token`: a token for [`post_upload`].
pub async fn create_token(request: HttpRequest, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Storage, async {
        if let Some(refused) = refuses(&request) {
            return refused;
        }
        let expires_at = sandbox.clock.now().plus(std::time::Duration::from_secs(TOKEN_SECONDS));
        let answer = json!({
            "token": format!("sandbox-{}", sandbox.ids.uuid().simple()),
            "token_type": "Bearer",
            "base_url": base(&request),
            "expires_at": expires_at.rfc3339(),
        });
        json(200, &answer)
    })
    .await
}

/// `POST /files/upload` with such a token: the bytes themselves.
pub async fn post_upload(request: HttpRequest, payload: web::Payload, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Storage, async {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let token = header(AUTHORIZATION.as_str()).and_then(|header| header.strip_prefix("Bearer "));
        if token.is_none_or(|token| !token.starts_with("sandbox-")) {
            return json(401, &json!({"detail": "Invalid token"}));
        }
        let Ok(Ok(bytes)) = payload.to_bytes_limited(UPLOAD_LIMIT).await else {
            return answers::too_large();
        };
        let name = sandbox.upload_name(header("x-fal-file-name"));
        let answer = json!({"access_url": file_url(&base(&request), &name)});
        sandbox.uploads.keep(Upload {
            name,
            content_type: content_type(&request).unwrap_or_else(octets),
            bytes: Some(bytes),
        });
        sandbox.tally.counts().uploads += 1;
        json(200, &answer)
    })
    .await
}

fn refuses(request: &HttpRequest) -> Option<HttpResponse> {
    match answers::access(request) {
        Access::Granted | Access::Locked => None,
        Access::Missing => Some(json(401, &json!({"detail": "Authorization header is required"}))),
        Access::Unknown => Some(answers::unknown_key()),
    }
}

fn content_type(request: &HttpRequest) -> Option<String> {
    let header = request.headers().get(CONTENT_TYPE)?;
    header.to_str().ok().map(str::to_owned)
}

fn octets() -> String {
    "application/octet-stream".to_owned()
}

/// The first eight digits of the name stand as a folder, as fal's do.
fn file_url(base: &str, name: &str) -> String {
    let folder = name.get(..8).unwrap_or("00000000");
    format!("{base}/files/b/{folder}/{name}")
}

impl Sandbox {
    /// A name that nobody can guess, ending in the caller's own.
    fn upload_name(&self, asked: Option<&str>) -> String {
        let plain = |letter: char| {
            if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '_' }
        };
        let asked: String = asked.unwrap_or("upload.bin").chars().map(plain).take(80).collect();
        let secret = self
            .ids
            .secret()
            .map_or_else(|_| self.ids.uuid().simple().to_string(), |secret| hex::encode(&secret[..16]));
        format!("{secret}_{asked}")
    }
}
