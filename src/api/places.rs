//! Where files lie, for the client and for us.

use actix_web::HttpRequest;
use bytes::Bytes;

use super::{Services, Upstream};
use crate::providers::MediaError;
use crate::storage::KEPT;

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

/// The bytes of a delivered image, wherever it lies.
pub async fn fetch(services: &Services, address: &str) -> Result<Bytes, MediaError> {
    match (address.strip_prefix(KEPT), &services.files) {
        (Some(name), Some(files)) => {
            files.storage.read(name).await.map_err(|fault| MediaError::Unreachable(fault.to_string()))
        }
        _ => services.media.fetch(&reachable(services, address)).await,
    }
}

/// Where we find a file of the provider ourselves.
fn reachable(services: &Services, address: &str) -> String {
    match (&services.upstream, sandbox_path(services, address)) {
        (Upstream::Sandbox(base), Some(path)) => format!("{base}{path}"),
        _ => address.to_owned(),
    }
}

/// How the outside reaches this gateway: the setting, else what the request says.
#[must_use]
pub fn public_base(services: &Services, request: &HttpRequest) -> String {
    services.http.public_url.clone().unwrap_or_else(|| {
        let connection = request.connection_info();
        format!("{}://{}", connection.scheme(), connection.host())
    })
}
