//! Files: delivered images under our own addresses, and inputs that a client uploads.

use std::sync::Arc;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    ACCEPT_RANGES, ByteRangeSpec, CACHE_CONTROL, CONTENT_RANGE, CONTENT_SECURITY_POLICY, ETAG, EntityTag, Header as _,
    IF_RANGE, IfNoneMatch, Range, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use tracing::warn;
use utoipa::ToSchema;

use super::access::{Open, ProjectCaller, scope};
use super::author::accounts_of;
use super::errors::{invalid_field, upload_problem};
use super::fal_clients::PROVIDER;
use super::forms::{Part, PartReader, expect_form};
use super::generations::project_of;
use super::{ListOrder, Services, query};
use crate::accounts::{Cursor, FileRecord, NewFile};
use crate::domain::{FileId, Timestamp};
use crate::http::{Code, Problem, ProblemBody, Verbatim};
use crate::providers::FileWish;
use crate::storage::{LinkError, Links, Storage, StorageError, content_type};

/// How long what never changes may be kept by others, in seconds: a year, the longest that caches heed.
const LONGEST_AGE: i64 = 365 * 24 * 3600;
/// What OpenAI's clients may say that a file is for.
const PURPOSES: &[&str] = &["vision", "user_data", "assistants"];
/// Longest name of an uploaded file, in bytes.
const LONGEST_NAME: usize = 255;

/// Where delivered images are kept, and how their links are made.
#[derive(Debug, Clone)]
pub struct Files {
    /// The place.
    pub storage: Arc<Storage>,
    /// Signs links that end; without it they last for ever.
    pub links: Option<Links>,
}

impl Files {
    /// The address of a kept file.
    pub(super) fn link(&self, base: &str, name: &str, now: Timestamp) -> String {
        match &self.links {
            Some(links) => format!("{base}/files/{name}?{}", links.query(name, now.seconds())),
            None => format!("{base}/files/{name}"),
        }
    }

    /// For how many seconds the file may be kept by others.
    fn age(&self, name: &str, given: &Signed, now: Timestamp) -> Result<i64, Problem> {
        let Some(links) = &self.links else { return Ok(LONGEST_AGE) };
        let (expires, signature) = (given.expires.unwrap_or_default(), given.signature.as_deref().unwrap_or_default());
        links.check(name, expires, signature, now.seconds()).map(|left| left.min(LONGEST_AGE)).map_err(|fault| {
            let hint = match fault {
                LinkError::NotOurs => "",
                LinkError::Ended => "; the generation's answer has a new one",
            };
            Problem::new(Code::PermissionDenied, format!("{fault}{hint}"))
        })
    }
}

/// What a link that ends carries.
#[derive(Debug, Deserialize)]
pub struct Signed {
    expires: Option<i64>,
    signature: Option<String>,
}

fn no_file() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}

fn storage_problem(fault: &StorageError) -> Problem {
    if matches!(fault, StorageError::NotFound) {
        return no_file();
    }
    warn!(%fault, "a kept file cannot be read");
    Problem::new(Code::ServiceUnavailable, "the file cannot be read now")
}

/// Fetch an image
///
/// A delivered image, where the gateway keeps them (`IMAGEGATE_STORAGE`). It never changes, so it may be cached for ever; a
/// link with `expires` opens it until then. `Range` asks for a part of it, such as `bytes=0-1023`.
#[utoipa::path(
    get,
    path = "/files/{generation_id}/{name}",
    operation_id = "retrieveImageFile",
    tag = "images",
    params(
        ("generation_id" = String, Path, description = "The generation's id."),
        ("name" = String, Path, description = "The file's name."),
        ("expires" = Option<i64>, Query, description = "When the link ends, in Unix seconds."),
        ("signature" = Option<String>, Query, description = "Proves that the link is ours."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what is there already."),
    ),
    responses(
        (status = 200, description = "The image.", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The part.", body = String, content_type = "application/octet-stream"),
        (status = 304, description = "It is there already."),
        (status = 400, description = "`expires` is not a number.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The link has ended, or is not ours.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such file.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The file has no such part."),
        (status = 503, description = "The storage is away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_image_file(
    _: Open,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    signed: web::Query<Signed>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let files = services.files.as_ref().ok_or_else(no_file)?;
    let name = format!("{}/{}", path.0, path.1);
    let age = files.age(&name, &signed, services.clock.now())?;
    let tag = EntityTag::new_strong(name.clone());
    let mut answer = HttpResponse::Ok();
    let cache = if files.links.is_some() { "private" } else { "public" };
    answer
        .content_type(content_type(&name))
        .insert_header((ETAG, tag.to_string()))
        .insert_header((CACHE_CONTROL, format!("{cache}, max-age={age}, immutable")))
        .insert_header((ACCEPT_RANGES, "bytes"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // An SVG may carry a script; here it runs none.
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"));
    // The storage is asked for the size alone only where nothing, or not all, is sent.
    let size = || async { files.storage.size(&name).await.map_err(|fault| storage_problem(&fault)) };
    let known = match IfNoneMatch::parse(&request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        Err(_) => false,
    };
    if known {
        size().await?;
        return Ok(answer.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    let range = match wanted_part(&request, &tag) {
        None => None,
        Some(part) => {
            let size = size().await?;
            let Some(range) = part.to_satisfiable_range(size) else {
                // A player of ranges reads the header, nobody a body.
                request.extensions_mut().insert(Verbatim);
                return Ok(HttpResponse::RangeNotSatisfiable()
                    .insert_header((CONTENT_RANGE, format!("bytes */{size}")))
                    .finish());
            };
            Some(range)
        }
    };
    let piece = files.storage.open_file(&name, range).await.map_err(|fault| storage_problem(&fault))?;
    let length = range.map_or(piece.size, |(first, last)| last - first + 1);
    if let Some((first, last)) = range {
        answer.status(actix_web::http::StatusCode::PARTIAL_CONTENT);
        answer.insert_header((CONTENT_RANGE, format!("bytes {first}-{last}/{}", piece.size)));
    }
    Ok(answer.body(SizedStream::new(length, piece.body)))
}

/// The one part that is asked for; several parts are answered with the whole, as RFC 9110 allows.
fn wanted_part(request: &HttpRequest, tag: &EntityTag) -> Option<ByteRangeSpec> {
    let is_of_this = request.headers().get(IF_RANGE).is_none_or(|value| value.as_bytes() == tag.to_string().as_bytes());
    match Range::parse(request) {
        Ok(Range::Bytes(specs)) if is_of_this => <[ByteRangeSpec; 1]>::try_from(specs).ok().map(|[one]| one),
        _ => None,
    }
}

/// What an uploaded file is for.
#[derive(Debug, ToSchema)]
#[schema(as = FilePurpose)]
#[expect(dead_code, reason = "describes the words of `purpose` in the document")]
pub enum PurposeText {
    /// An input of requests.
    #[serde(rename = "vision")]
    Vision,
    /// The same.
    #[serde(rename = "user_data")]
    UserData,
    /// The same.
    #[serde(rename = "assistants")]
    Assistants,
}

/// A form with one image.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FileUpload)]
#[expect(dead_code, reason = "describes the form in the document")]
pub struct UploadForm {
    /// The image, as PNG, JPEG, WebP, GIF or AVIF; at most 20 MiB and 64 megapixels.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    file: Vec<u8>,
    /// `vision` if not given; `user_data` and `assistants` mean the same.
    #[schema(value_type = Option<PurposeText>, nullable = false, example = "vision")]
    purpose: Option<String>,
}

/// An uploaded file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadedFile)]
pub struct FileView {
    /// Its id.
    #[schema(example = "file-019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `file`.
    #[schema(example = "file")]
    object: &'static str,
    /// Its size; 0 where one of fal's clients has put it into fal's storage itself.
    #[schema(example = 123_456)]
    bytes: u64,
    /// When it was uploaded, in Unix seconds.
    created_at: i64,
    /// What the client calls it.
    #[schema(example = "cat.png")]
    filename: String,
    /// What it is for.
    #[schema(example = "vision")]
    purpose: String,
    /// Always `processed`: it can be used.
    #[schema(example = "processed")]
    status: &'static str,
    /// MIME type, by its content.
    #[schema(example = "image/png")]
    content_type: String,
    /// What to give as `image_url` in a request.
    #[schema(example = "https://v3b.fal.media/files/b/0a84799e/input.png")]
    url: String,
}

impl From<FileRecord> for FileView {
    fn from(file: FileRecord) -> Self {
        Self {
            id: file.id.to_string(),
            object: "file",
            bytes: file.bytes,
            created_at: file.created_at.seconds(),
            filename: file.name,
            purpose: file.purpose,
            status: "processed",
            content_type: file.content_type,
            url: file.url.unwrap_or_default(),
        }
    }
}

/// A page of uploaded files.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The files.
    data: Vec<FileView>,
    /// The first one's id; null on an empty page.
    #[schema(required = true)]
    first_id: Option<String>,
    /// The last one's id: `after` for the next page; null on an empty page.
    #[schema(required = true)]
    last_id: Option<String>,
    /// Whether there are more after the last one.
    has_more: bool,
}

/// What is left of a file that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileDeletion {
    /// The id that it had.
    id: String,
    /// Always `file`.
    #[schema(example = "file")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

/// Upload an input image
///
/// Once, to be named by its `url` in any number of requests. It lies at the provider, for as long as the provider keeps
/// uploads. It counts against the project's bytes a day and its files kept (`limits` of the project).
#[utoipa::path(
    post,
    path = "/v1/files",
    operation_id = "uploadFile",
    tag = "images",
    request_body(content = UploadForm, content_type = "multipart/form-data", encoding(("file" = (content_type = "image/png, image/jpeg, image/webp, image/gif")))),
    responses(
        (status = 200, description = "The file.", body = FileView),
        (status = 400, description = "It is not an image that can be used.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key, or the project keeps as many files as it may.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The form is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is no multipart form.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "The project has uploaded as many bytes today as it may.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "The provider's storage refuses the gateway.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The provider's storage does not take files now.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn upload_file(
    caller: ProjectCaller<scope::Files>,
    request: HttpRequest,
    payload: web::Payload,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    expect_form(&request, "with the image as `file`")?;
    let mut form = PartReader::new(&request, payload);
    let (mut file, mut purpose) = (None, "vision".to_owned());
    let mut take = |part: Part| {
        match part.name.as_str() {
            "file" if file.is_some() => return Err(invalid_field("file", "given more than once")),
            "file" => file = Some(part),
            "purpose" => purpose = String::from_utf8_lossy(&part.bytes).into_owned(),
            other => return Err(invalid_field(other, "is no field of this form")),
        }
        Ok(())
    };
    // A form that is at fault as a whole is refused for that, so all of it is read.
    let mut taken = Ok(());
    while let Some(part) = form.next().await? {
        if taken.is_ok() {
            taken = take(part);
        }
    }
    taken?;
    let file = file.ok_or_else(|| invalid_field("file", "is required"))?;
    check_purpose(&purpose)?;
    let (project_id, bytes) = (project_of(&caller)?, file.bytes.freeze());
    let content_type = services.gateway.inspect_file(project_id, "file", bytes.clone()).await?;
    let name = file.file_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "input".to_owned());
    if name.len() > LONGEST_NAME {
        return Err(invalid_field("file", "has a name of at most 255 bytes"));
    }
    let accounts = accounts_of(&request, &caller, &services);
    let new = NewFile {
        project_id,
        api_key_id: caller.api_key_id,
        name,
        purpose,
        bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        content_type: content_type.to_owned(),
    };
    let announced = accounts.announce_file(new).await?;
    let end = content_type.rsplit('/').next().unwrap_or("bin");
    let wish = FileWish { content_type: content_type.to_owned(), file_name: format!("input.{end}") };
    match services.gateway.upload(project_id, PROVIDER, &wish, bytes).await {
        Ok(url) => Ok(HttpResponse::Ok().json(FileView::from(accounts.place_file(announced, &url).await?))),
        Err(failure) => {
            accounts.withdraw_file(announced.id).await;
            Err(upload_problem("the provider's", &failure))
        }
    }
}

fn check_purpose(purpose: &str) -> Result<(), Problem> {
    if PURPOSES.contains(&purpose) {
        return Ok(());
    }
    Err(invalid_field("purpose", "must be `vision`, `user_data` or `assistants`"))
}

/// List uploaded files
///
/// The project's files, newest first.
#[utoipa::path(
    get,
    path = "/v1/files",
    operation_id = "listFiles",
    tag = "images",
    params(
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000; 20 if not given.", minimum = 1, maximum = 1000),
        ("after" = inline(Option<FileId>), Query, description = "The id to go on after: `last_id` of the page before."),
        ("order" = inline(Option<ListOrder>), Query, description = "`desc`, newest first, if not given; or `asc`."),
        ("purpose" = inline(Option<PurposeText>), Query, description = "Only those for this: `vision`, `user_data` or `assistants`."),
    ),
    responses(
        (status = 200, description = "A page of files.", body = FileList),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_files(
    caller: ProjectCaller<scope::Files>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["limit", "after", "order", "purpose"])?;
    let oldest_first = match pairs.one("order")? {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(invalid_field("order", "must be `asc` or `desc`")),
    };
    let after = pairs.parsed("after", "a file's id")?.map(FileId::uuid);
    let cursor = Cursor { after, oldest_first, limit: pairs.limit(20, 1000)? };
    let purpose = pairs.one("purpose")?;
    purpose.map_or(Ok(()), check_purpose)?;
    let page = services.accounts.files_page(project_of(&caller)?, purpose, cursor).await?;
    let data: Vec<FileView> = page.items.into_iter().map(FileView::from).collect();
    let id = |view: Option<&FileView>| view.map(|view| view.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(HttpResponse::Ok().json(FileList { object: "list", data, first_id, last_id, has_more: page.has_more }))
}

/// Retrieve an uploaded file
#[utoipa::path(
    get,
    path = "/v1/files/{id}",
    operation_id = "retrieveFile",
    tag = "images",
    params(("id" = String, Path, description = "The file's id.")),
    responses(
        (status = 200, description = "The file.", body = FileView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such file.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_file(
    caller: ProjectCaller<scope::Files>,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let file = services.accounts.file(project_of(&caller)?, file_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(FileView::from(file)))
}

/// Delete an uploaded file
///
/// It is no longer listed and no longer counts as kept; what it has of the day's bytes stays counted. The provider keeps
/// what it has for as long as it keeps uploads.
#[utoipa::path(
    delete,
    path = "/v1/files/{id}",
    operation_id = "deleteFile",
    tag = "images",
    params(("id" = String, Path, description = "The file's id.")),
    responses(
        (status = 200, description = "It is gone.", body = FileDeletion),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such file.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn delete_file(
    caller: ProjectCaller<scope::Files>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let file = file_id(&id)?;
    accounts_of(&request, &caller, &services).delete_file(project_of(&caller)?, file).await?;
    Ok(HttpResponse::Ok().json(FileDeletion { id: file.to_string(), object: "file", deleted: true }))
}

fn file_id(text: &str) -> Result<FileId, Problem> {
    text.parse().map_err(|_| crate::accounts::AccountsError::UnknownFile.into())
}
