//! Fetches delivered images, from the provider's hosts only, with limits on size and time.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use url::Url;

use crate::domain::{FairSemaphore, MemoryBudget, MemoryShare, MemoryUse, OutOfMemory, ProjectId};

/// Largest image that is fetched: a 4096×4096 PNG of noise is about 50 MB.
const IMAGE_LIMIT: usize = 64 * 1024 * 1024;
/// How many images are fetched at once; the others wait, so that memory stays bounded.
const FETCHES_AT_ONCE: usize = 16;
/// How many of them for one project.
const FETCHES_EACH: usize = 12;
/// Longest time for one image.
const FETCH_TIMEOUT: Duration = Duration::from_mins(1);

/// Why an image cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The address is not on a host that images are fetched from.
    #[error("`{0}` is not a host that images are fetched from")]
    ForeignHost(String),
    /// The image is larger than we carry.
    #[error("the image is larger than {IMAGE_LIMIT} bytes")]
    TooLarge,
    /// What the host delivers is no image: a page, an error in JSON, or nothing.
    #[error("there is no image at its address but {0}")]
    NoImage(&'static str),
    /// There is no memory for it now.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The host does not deliver.
    #[error("the image cannot be fetched: {0}")]
    Unreachable(String),
}

/// Bytes that give their memory back to the budget when the last clone of them is dropped.
#[must_use]
pub fn with_memory(bytes: Bytes, memory: MemoryShare) -> Bytes {
    Bytes::from_owner(Accounted { bytes, _memory: memory })
}

struct Accounted {
    bytes: Bytes,
    _memory: MemoryShare,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Fetches delivered images.
#[derive(Debug, Clone)]
pub struct Media {
    client: Client,
    hosts: Vec<String>,
    memory: MemoryBudget,
    permits: FairSemaphore<Option<ProjectId>>,
}

impl Media {
    /// `hosts` as in `FAL_MEDIA_HOSTS`: names, or `*.` and a name for any host below it. What is fetched takes its memory from
    /// the budget.
    pub fn new(hosts: Vec<String>, memory: MemoryBudget) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, hosts, memory, permits: FairSemaphore::new(FETCHES_AT_ONCE, FETCHES_EACH) })
    }

    /// The budget that it takes memory from.
    #[must_use]
    pub const fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Memory for a file of so many bytes that is delivered to a project, or to an operator.
    pub fn reserve(&self, project: Option<ProjectId>, bytes: u64) -> Result<MemoryShare, OutOfMemory> {
        self.memory.reserve(MemoryUse::Output, project, bytes)
    }

    /// One image's bytes, for a project, or for an operator. They take their memory from the budget. Projects take turns.
    pub async fn fetch(&self, project: Option<ProjectId>, address: &str) -> Result<Bytes, MediaError> {
        if let Some(data) = address.strip_prefix("data:") {
            let memory = self.reserve(project, data.len() as u64 / 4 * 3)?;
            return Ok(with_memory(decode_data_uri(data)?, memory));
        }
        let url = Url::parse(address).map_err(|fault| MediaError::Unreachable(fault.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.scheme(), "http" | "https") || !self.hosts.iter().any(|allowed| matches_host(allowed, host)) {
            return Err(MediaError::ForeignHost(host.to_owned()));
        }
        let _permit = self.permits.acquire(project).await;
        let unreachable = |fault: reqwest::Error| MediaError::Unreachable(cause_of(&fault));
        let mut response = self.client.get(url).timeout(FETCH_TIMEOUT).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(MediaError::Unreachable(format!("status {}", response.status().as_u16())));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default().trim() {
            "text/html" => return Err(MediaError::NoImage("a page")),
            "application/json" | "application/problem+json" => return Err(MediaError::NoImage("JSON")),
            _ => {}
        }
        let announced = response.content_length().unwrap_or(0);
        if announced > IMAGE_LIMIT as u64 {
            return Err(MediaError::TooLarge);
        }
        let mut memory = self.reserve(project, announced)?;
        let mut image = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            let length = image.len() + piece.len();
            if length > IMAGE_LIMIT {
                return Err(MediaError::TooLarge);
            }
            // Without an announced length it may take twice as much while it grows.
            if length as u64 > memory.bytes() {
                memory.grow((2 * length) as u64 - memory.bytes())?;
            }
            image.extend_from_slice(&piece);
        }
        if image.is_empty() {
            return Err(MediaError::NoImage("nothing"));
        }
        Ok(with_memory(image.freeze(), memory))
    }
}

/// The innermost cause in words, without the address (which an operator may have given a password).
pub(super) fn cause_of(fault: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = fault;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if fault.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() }
}

fn decode_data_uri(data: &str) -> Result<Bytes, MediaError> {
    let encoded = data.split_once(";base64,").map(|(_, encoded)| encoded);
    encoded
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .map(Bytes::from)
        .ok_or_else(|| MediaError::Unreachable("the data URI is not base64".to_owned()))
}

fn matches_host(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => allowed.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_hosts_match() {
        assert!(matches_host("fal.media", "fal.media"));
        assert!(matches_host("*.fal.media", "v3b.fal.media"));
        for host in ["evilfal.media", "fal.media.evil.example", ".fal.media", "fal.media"] {
            assert!(!matches_host("*.fal.media", host), "{host}");
        }
    }

    #[tokio::test]
    async fn an_image_elsewhere_is_not_fetched() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let media = Media::new(vec!["fal.media".into()], MemoryBudget::new(1_000, 10)).unwrap();
        for address in ["http://169.254.169.254/latest", "file:///etc/passwd", "http://127.0.0.1:1/x"] {
            assert!(matches!(media.fetch(None, address).await, Err(MediaError::ForeignHost(_))), "{address}");
        }
        let file = media.fetch(None, "data:image/png;base64,AAEC").await.unwrap();
        assert_eq!(file, [0, 1, 2].as_slice());
        let large = format!("data:image/png;base64,{}", "AAAA".repeat(400));
        assert_eq!(media.fetch(None, &large).await.unwrap_err(), MediaError::OutOfMemory(OutOfMemory::Gateway));
    }

    #[tokio::test]
    async fn images_that_do_not_come_hold_up_their_own_project_only() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let media = Media::new(vec!["127.0.0.1".into()], MemoryBudget::new(1_000, 10)).unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/a.png", silent.local_addr().unwrap());
        let [many, one] = [1, 2].map(|number| Some(ProjectId::from_uuid(uuid::Uuid::from_u128(number))));
        let stuck = futures_util::future::join_all((0..40).map(|_| media.fetch(many, &address)));
        let refused = media.fetch(one, "http://127.0.0.1:1/a.png");
        let limit = Duration::from_secs(30);
        let first = tokio::time::timeout(limit, futures_util::future::select(Box::pin(stuck), Box::pin(refused))).await;
        assert!(matches!(first, Ok(futures_util::future::Either::Right((Err(MediaError::Unreachable(_)), _)))));
    }
}
