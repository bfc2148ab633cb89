//! `IMAGEGATE_STORAGE` and what belongs to it.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::{ConfigError, Reader, Secret, bad};

/// How the names of the clouds' own settings begin, such as `AWS_ACCESS_KEY_ID`. They are read for the storage only.
pub(super) const CLOUD_PREFIXES: &[&str] = &["AWS_", "GOOGLE_", "AZURE_"];
/// The kinds of places.
const SCHEMES: &[&str] = &["file", "s3", "gs", "az"];

/// Where delivered images are kept.
#[derive(Clone)]
pub struct StorageSettings {
    /// `IMAGEGATE_STORAGE`.
    pub url: Url,
    /// The clouds' own settings.
    pub options: Vec<(String, String)>,
    /// `IMAGEGATE_FILE_TTL` and `IMAGEGATE_FILE_SECRET`: how long a link lasts and what signs it; unset, links last for
    /// ever and need no signature.
    pub links: Option<(Duration, Secret)>,
}

impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageSettings({}, {:?})", self.url, self.links)
    }
}

impl Reader<'_> {
    pub(super) fn storage(&self) -> Result<Option<StorageSettings>, ConfigError> {
        let ttl = match self.text("IMAGEGATE_FILE_TTL") {
            Some(_) => Some(self.positive_duration("IMAGEGATE_FILE_TTL", Duration::ZERO)?),
            None => None,
        };
        let secret = self.key("IMAGEGATE_FILE_SECRET")?;
        let name = "IMAGEGATE_STORAGE";
        let Some(value) = self.text(name) else { return Ok(None) };
        let url = Url::parse(value).ok().filter(|url| SCHEMES.contains(&url.scheme()));
        let url = url.filter(|url| (url.scheme() == "file") == url.host_str().is_none_or(str::is_empty));
        let Some(url) = url else {
            return Err(bad(name, value, "`file:///folder`, `s3://bucket/prefix`, `gs://…` or `az://…`"));
        };
        let links = match (ttl, secret) {
            (Some(ttl), Some(secret)) => Some((ttl, secret)),
            (None, None) => None,
            (Some(_), None) => return Err(bad("IMAGEGATE_FILE_SECRET", "", "set where IMAGEGATE_FILE_TTL is set")),
            (None, Some(_)) => return Err(bad("IMAGEGATE_FILE_TTL", "", "set where IMAGEGATE_FILE_SECRET is set")),
        };
        let is_cloud = |name: &str| CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let options = self.0.iter().filter(|(name, _)| is_cloud(name));
        let options = options.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Some(StorageSettings { url, options, links }))
    }
}
