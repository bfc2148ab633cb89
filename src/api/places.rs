//! Where files lie, for the client and for us, and what is fetched from there.

use std::time::{Duration, Instant};

use actix_web::{HttpMessage as _, HttpRequest};
use bytes::Bytes;
use futures_util::future::join_all;

use super::answer::ImageView;
use super::embedded::Embedded;
use super::{Services, Upstream};
use crate::domain::{ProjectId, Timestamp};
use crate::http::LoggedCaller;
use crate::providers::{Delivery, MediaError, with_memory};
use crate::storage::{KEPT, StorageError};

/// The path of one of the stand-in's files, whatever port it had when the file was made.
fn sandbox_path<'a>(services: &Services, address: &'a str) -> Option<&'a str> {
    let Upstream::Sandbox(_) = services.upstream else { return None };
    let rest = address.strip_prefix("http://127.0.0.1:")?;
    rest.find("/files/").map(|at| &rest[at..])
}

/// Where a client finds a file: the stand-in's are shown under our own address, because some clients refuse files from
/// another loopback port.
pub(super) fn public(services: &Services, base: &str, address: &str) -> String {
    if let (Some(name), Some(files)) = (address.strip_prefix(KEPT), &services.files) {
        return files.link(base, name, services.clock.now());
    }
    match sandbox_path(services, address) {
        Some(path) => format!("{base}/sandbox{path}"),
        None => address.to_owned(),
    }
}

/// Whose request it is; `None` for operators.
pub(super) fn project_of_request(request: &HttpRequest) -> Option<ProjectId> {
    request.extensions().get::<LoggedCaller>().and_then(|caller| caller.project_id)
}

/// The bytes of a delivered image, wherever it lies, for a project or for an operator. They take their memory from the budget.
pub async fn fetch(services: &Services, project: Option<ProjectId>, address: &str) -> Result<Bytes, MediaError> {
    match (address.strip_prefix(KEPT), &services.files) {
        (Some(name), Some(files)) => {
            let unreachable = |fault: StorageError| MediaError::Unreachable(fault.to_string());
            let size = files.storage.size(name).await.map_err(unreachable)?;
            let memory = services.media.reserve(project, size)?;
            Ok(with_memory(files.storage.read(name).await.map_err(unreachable)?, memory))
        }
        _ => services.media.fetch(project, &reachable(services, address)).await,
    }
}

/// Where we find a file of the provider ourselves.
fn reachable(services: &Services, address: &str) -> String {
    match (&services.upstream, sandbox_path(services, address)) {
        (Upstream::Sandbox(base), Some(path)) => format!("{base}{path}"),
        _ => address.to_owned(),
    }
}

/// How the outside reaches this gateway: the setting, else the request's host, which was checked to be one.
#[must_use]
pub fn public_base(services: &Services, request: &HttpRequest) -> String {
    services.http.public_url.clone().unwrap_or_else(|| {
        let connection = request.connection_info();
        let scheme = if connection.scheme().eq_ignore_ascii_case("https") { "https" } else { "http" };
        format!("{scheme}://{}", connection.host())
    })
}

/// How long an image is waited for where the deadline is over or far.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);
/// Before the second try; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How much of a file is kept to be looked at, in bytes: what PNG says of its colours is within.
const LENGTH_OF_HEADERS: usize = 32;

/// Which forms of the images themselves an answer has.
#[derive(Debug, Clone, Copy)]
pub struct Embedding {
    /// `b64_json` has them.
    pub as_base64: bool,
    /// `url` is a data URI.
    pub as_data_uris: bool,
}

/// Fetches the images of a delivery, all at once, into their views. Nothing to do where no form of them is wanted. The views
/// get marks in place of the images; the answer is written by the [`Embedded`] that is returned.
///
/// A fetch that fails is repeated until the generation's deadline. An image that cannot be had keeps its address and says why:
/// it was made and charged, so an error would have the client pay again.
pub async fn embed(
    services: &Services,
    project: Option<ProjectId>,
    deadline: Timestamp,
    delivery: &Delivery,
    images: &mut [ImageView],
    how: Embedding,
) -> Embedded {
    let mut embedded = Embedded::default();
    if !how.as_base64 && !how.as_data_uris {
        return embedded;
    }
    let patience = deadline.since(services.clock.now()).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
    let fetches = delivery.images.iter().map(|image| fetch_patiently(services, project, &image.url, patience));
    for (image, file) in images.iter_mut().zip(join_all(fetches).await) {
        let mark = match file {
            Ok(file) => {
                image.file_begins = file[..file.len().min(LENGTH_OF_HEADERS)].to_vec();
                embedded.add(services.ids.uuid(), file)
            }
            Err(fault) => {
                image.embedding_error = Some(fault.to_string());
                continue;
            }
        };
        if how.as_data_uris {
            let kind = image.content_type.as_deref().unwrap_or("image/jpeg");
            image.url = format!("data:{kind};base64,{mark}");
        }
        image.b64_json = how.as_base64.then_some(mark);
    }
    embedded
}

/// Fetches an image, again and again where that may help.
async fn fetch_patiently(
    services: &Services,
    project: Option<ProjectId>,
    address: &str,
    patience: Duration,
) -> Result<Bytes, MediaError> {
    let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        let fault = match tokio::time::timeout(left, fetch(services, project, address)).await {
            Ok(Ok(file)) => return Ok(file),
            Ok(Err(fault)) => fault,
            Err(_) => MediaError::Unreachable("no answer in time".to_owned()),
        };
        let may_help =
            matches!(fault, MediaError::Unreachable(_) | MediaError::NoImage(_) | MediaError::OutOfMemory(_));
        if !may_help || begin.elapsed() + pause >= patience {
            tracing::warn!(%fault, "a delivered image cannot be fetched; it is not embedded in the answer");
            return Err(fault);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
