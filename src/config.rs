//! All settings, one struct per room; nobody else reads the environment.
//!
//! A setting is looked up in the environment, then in `.env`, then in `imagegate.toml`, where the section and the key
//! together spell the variable: `[imagegate] bind = …` is `IMAGEGATE_BIND`, `[fal] key = …` is `FAL_KEY`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Fixed, Network};

mod files;
mod reader;
mod storage;
#[cfg(test)]
mod tests;

use files::{read_dotenv, read_toml};
use reader::Reader;
pub use reader::parse_duration;
use storage::CLOUD_PREFIXES;
pub use storage::StorageSettings;

/// A secret from the settings; shows as dots wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: to hash it or to send it, never to log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One bad setting, in one sentence: the variable, the value and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be used.
    #[error("{name}=`{value}` is not allowed: {allowed}")]
    Bad {
        /// The variable.
        name: &'static str,
        /// What it was set to; dots for a secret.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
    /// A name in `imagegate.toml` that no setting has.
    #[error("`{name}` in {file} is not a setting of imagegate: see `.env.example` for all of them")]
    Unknown {
        /// The file.
        file: String,
        /// The section and key as written.
        name: String,
    },
    /// A settings file that cannot be read.
    #[error("{file} cannot be read: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The HTTP face.
    pub http: HttpSettings,
    /// Where the books are: `sqlite://…` or `postgres://…`.
    pub database_url: String,
    /// `IMAGEGATE_DATABASE_DIRECT_URL`: past a transaction pooler, for migrations and the books' writer.
    pub database_direct_url: Option<String>,
    /// `IMAGEGATE_DATABASE_READ_URL`: a standby that usage, exports and lists are read from.
    pub database_read_url: Option<String>,
    /// `IMAGEGATE_JOURNAL`: the folder that keeps what cannot be written to the books while the database is away.
    pub journal: PathBuf,
    /// The provider fal.
    pub fal: FalSettings,
    /// The built-in stand-in for fal.
    pub sandbox: SandboxSettings,
    /// Keys set from outside.
    pub keys: KeySettings,
    /// Where delivered images are kept; unset, fal's own addresses are passed on.
    pub storage: Option<StorageSettings>,
    /// What is sold and for how much.
    pub sales: SalesSettings,
    /// What new projects begin with.
    pub projects: ProjectSettings,
    /// What the log looks like.
    pub log: LogSettings,
}

/// How the gateway is reached.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `IMAGEGATE_BIND`: where the gateway listens.
    pub bind: SocketAddr,
    /// `IMAGEGATE_ADMIN_BIND`: where the operators' face listens, if not where the public one does.
    pub admin_bind: Option<SocketAddr>,
    /// `IMAGEGATE_PUBLIC_URL`: how the outside reaches this gateway, without a trailing slash; from the request if unset.
    pub public_url: Option<String>,
    /// `IMAGEGATE_BODY_LIMIT` in bytes: larger requests get 413.
    pub body_limit: usize,
    /// `IMAGEGATE_MEMORY_LIMIT` in bytes: what the process may take, of which half is for bodies and images under way; unset,
    /// from what the machine or the container has.
    pub memory_limit: Option<usize>,
    /// `IMAGEGATE_BODY_TIMEOUT`: longest time that a request's body may take to arrive; slower ones get 408.
    pub body_timeout: Duration,
    /// `IMAGEGATE_CORS_ORIGINS`: who may call from a browser; `None` is everybody.
    pub cors_origins: Option<Vec<String>>,
    /// `IMAGEGATE_WEBHOOK_ALLOW_PRIVATE`: whether customers' webhooks may go to private and loopback addresses.
    pub webhook_allow_private: bool,
    /// `IMAGEGATE_TRUSTED_PROXIES`: whose `X-Forwarded-For`, `-Host` and `-Proto` are believed; nobody's if empty.
    pub trusted_proxies: Vec<Network>,
    /// `IMAGEGATE_TLS_CERT` and `IMAGEGATE_TLS_KEY`: serve HTTPS; `None` is plain HTTP.
    pub tls: Option<TlsSettings>,
    /// `IMAGEGATE_SHUTDOWN_DELAY`: how long SIGTERM leaves the process serving while `/readyz` is red already.
    pub shutdown_delay: Duration,
    /// `IMAGEGATE_SUCCESS_STATUS`: 201, or 200 for clients of AIML's later releases.
    pub success_status: u16,
}

/// Where the certificate and its key are, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `IMAGEGATE_TLS_CERT`: the certificate and those between it and the root.
    pub certificate: PathBuf,
    /// `IMAGEGATE_TLS_KEY`: its key.
    pub key: PathBuf,
}

/// How fal is reached.
#[derive(Debug, Clone)]
pub struct FalSettings {
    /// `FAL_KEY`, with their weights; empty means that the sandbox stands in.
    pub keys: Vec<FalKey>,
    /// `FAL_KEY_CONCURRENCY`: most requests that one key may have open at fal; `None` is no limit but what fal's 429 teaches.
    pub key_concurrency: Option<usize>,
    /// `FAL_RUN_URL`, without a trailing slash.
    pub run_url: String,
    /// `FAL_QUEUE_URL`, without a trailing slash.
    pub queue_url: String,
    /// `FAL_REST_URL`, without a trailing slash.
    pub rest_url: String,
    /// `FAL_API_URL`, without a trailing slash: fal's platform, which tells what was billed.
    pub api_url: String,
    /// `FAL_MEDIA_HOSTS`: hosts that images may be fetched from; `*.` in front stands for any one or more labels.
    pub media_hosts: Vec<String>,
    /// Whether any of the three addresses was set by the operator: then fal is meant, even without a key.
    pub addresses_set: bool,
}

/// One of fal's keys and its share of the work.
#[derive(Debug, Clone)]
pub struct FalKey {
    /// `key_id:key_secret`.
    pub key: Secret,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// The built-in stand-in for fal.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// `IMAGEGATE_SANDBOX_BIND`; port 0 is any free one.
    pub bind: SocketAddr,
    /// `IMAGEGATE_SANDBOX_DELAY`: how long an image takes.
    pub delay: Duration,
}

/// Keys that are set from outside, so that scripts need not read logs.
#[derive(Debug, Clone, Default)]
pub struct KeySettings {
    /// `IMAGEGATE_ADMIN_KEY`: this value is an admin key.
    pub admin: Option<Secret>,
    /// `IMAGEGATE_BOOTSTRAP_KEY`: this value is a key of the project `default`.
    pub bootstrap: Option<Secret>,
}

/// What is sold and for how much.
#[derive(Debug, Clone)]
pub struct SalesSettings {
    /// `IMAGEGATE_MODELS_DIR`: model files that are added to, or replace, the built-in ones.
    pub models_dir: Option<PathBuf>,
    /// `IMAGEGATE_ALIASES_FILE`: a TOML file of names that the operator gives to models.
    pub aliases_file: Option<PathBuf>,
    /// `IMAGEGATE_MARKUP`: selling price = fal's price × this.
    pub markup: Fixed,
    /// `IMAGEGATE_DEADLINE`: longest wait for one image, if its model file has none.
    pub deadline: Duration,
}

/// What new projects begin with; those that are there stay as they are.
#[derive(Debug, Clone, Copy)]
pub struct ProjectSettings {
    /// `IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE`: requests for one model; `None` is any number.
    pub requests_per_minute: Option<u32>,
    /// `IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE`: images of one model; `None` is any number.
    pub images_per_minute: Option<u32>,
}

/// What the log looks like.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// `IMAGEGATE_LOG`: a tracing filter.
    pub filter: String,
    /// `IMAGEGATE_LOG_FORMAT`: `json` for machines.
    pub json: bool,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: where traces go, without a trailing slash; nowhere if unset.
    pub otlp_endpoint: Option<String>,
}

/// Every name that a settings file may use.
const NAMES: &[&str] = &[
    "IMAGEGATE_BIND",
    "IMAGEGATE_ADMIN_BIND",
    "DATABASE_URL",
    "IMAGEGATE_DATABASE_DIRECT_URL",
    "IMAGEGATE_DATABASE_READ_URL",
    "IMAGEGATE_JOURNAL",
    "FAL_KEY",
    "FAL_KEY_CONCURRENCY",
    "FAL_RUN_URL",
    "FAL_QUEUE_URL",
    "FAL_REST_URL",
    "FAL_API_URL",
    "FAL_MEDIA_HOSTS",
    "IMAGEGATE_ADMIN_KEY",
    "IMAGEGATE_BOOTSTRAP_KEY",
    "IMAGEGATE_MODELS_DIR",
    "IMAGEGATE_ALIASES_FILE",
    "IMAGEGATE_MARKUP",
    "IMAGEGATE_SUCCESS_STATUS",
    "IMAGEGATE_PUBLIC_URL",
    "IMAGEGATE_WEBHOOK_ALLOW_PRIVATE",
    "IMAGEGATE_TRUSTED_PROXIES",
    "IMAGEGATE_TLS_CERT",
    "IMAGEGATE_TLS_KEY",
    "IMAGEGATE_SHUTDOWN_DELAY",
    "IMAGEGATE_SANDBOX_BIND",
    "IMAGEGATE_SANDBOX_DELAY",
    "IMAGEGATE_DEADLINE",
    "IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE",
    "IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE",
    "IMAGEGATE_BODY_LIMIT",
    "IMAGEGATE_MEMORY_LIMIT",
    "IMAGEGATE_BODY_TIMEOUT",
    "IMAGEGATE_CORS_ORIGINS",
    "IMAGEGATE_STORAGE",
    "IMAGEGATE_FILE_TTL",
    "IMAGEGATE_FILE_SECRET",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "IMAGEGATE_LOG",
    "IMAGEGATE_LOG_FORMAT",
];

impl Config {
    /// Reads the environment, `.env` and `imagegate.toml` of the current folder.
    pub fn load() -> Result<Self, ConfigError> {
        let mut values = read_toml(Path::new("imagegate.toml"))?;
        values.extend(read_dotenv(Path::new(".env"))?);
        let cloud =
            std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        values.extend(cloud.filter(|(name, _)| CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))));
        for name in NAMES {
            #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
            match std::env::var(name) {
                Ok(value) => {
                    values.insert((*name).to_owned(), value);
                }
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(bad(name, "(not UTF-8)", "text in UTF-8"));
                }
            }
        }
        Self::from_values(&values)
    }

    /// From values by their variable's name; unset or empty ones take their default.
    pub fn from_values(values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let read = Reader(values);
        let queue_url = read.base_url("FAL_QUEUE_URL", "https://queue.fal.run")?;
        let run_url = read.base_url("FAL_RUN_URL", "https://fal.run")?;
        let rest_url = read.base_url("FAL_REST_URL", "https://rest.fal.ai")?;
        let addresses_set =
            ["FAL_QUEUE_URL", "FAL_RUN_URL", "FAL_REST_URL"].iter().any(|name| read.text(name).is_some());
        let mut media_hosts = read.hosts("FAL_MEDIA_HOSTS", "fal.media,*.fal.media")?;
        media_hosts.extend([&queue_url, &run_url, &rest_url].iter().filter_map(|url| host_of(url)));
        let success_status = read.parse("IMAGEGATE_SUCCESS_STATUS", 201_u16, "200 or 201")?;
        if !matches!(success_status, 200 | 201) {
            return Err(bad("IMAGEGATE_SUCCESS_STATUS", &success_status.to_string(), "200 or 201"));
        }
        let body_limit = read.size("IMAGEGATE_BODY_LIMIT", 32 * 1024 * 1024)?;
        let memory_limit = read.memory_limit(body_limit)?;
        let markup = read.parse("IMAGEGATE_MARKUP", Fixed::ONE, "a decimal string such as `1.3`, at least 0")?;
        if markup < Fixed::ZERO {
            return Err(bad("IMAGEGATE_MARKUP", &markup.to_string(), "a decimal string such as `1.3`, at least 0"));
        }
        let json = match read.text("IMAGEGATE_LOG_FORMAT") {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(bad("IMAGEGATE_LOG_FORMAT", other, "`json` or `text`")),
        };
        Ok(Self {
            http: HttpSettings {
                bind: read.address("IMAGEGATE_BIND", "127.0.0.1:8080")?,
                admin_bind: match read.text("IMAGEGATE_ADMIN_BIND") {
                    Some(_) => Some(read.address("IMAGEGATE_ADMIN_BIND", "")?),
                    None => None,
                },
                public_url: match read.text("IMAGEGATE_PUBLIC_URL") {
                    Some(_) => Some(read.base_url("IMAGEGATE_PUBLIC_URL", "")?),
                    None => None,
                },
                body_limit,
                memory_limit,
                body_timeout: read.positive_duration("IMAGEGATE_BODY_TIMEOUT", Duration::from_mins(1))?,
                cors_origins: read.origins("IMAGEGATE_CORS_ORIGINS")?,
                webhook_allow_private: read.switch("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE")?,
                trusted_proxies: read.networks("IMAGEGATE_TRUSTED_PROXIES")?,
                tls: read.tls()?,
                shutdown_delay: read.duration("IMAGEGATE_SHUTDOWN_DELAY", Duration::ZERO)?,
                success_status,
            },
            database_url: read.database_url()?,
            database_direct_url: read.postgres_url("IMAGEGATE_DATABASE_DIRECT_URL")?,
            database_read_url: read.postgres_url("IMAGEGATE_DATABASE_READ_URL")?,
            journal: PathBuf::from(read.text("IMAGEGATE_JOURNAL").unwrap_or("data/journal")),
            fal: FalSettings {
                keys: read.fal_keys()?,
                key_concurrency: read.key_concurrency()?,
                run_url,
                queue_url,
                rest_url,
                api_url: read.base_url("FAL_API_URL", "https://api.fal.ai/v1")?,
                media_hosts,
                addresses_set,
            },
            sandbox: SandboxSettings {
                bind: read.address("IMAGEGATE_SANDBOX_BIND", "127.0.0.1:0")?,
                delay: read.duration("IMAGEGATE_SANDBOX_DELAY", Duration::from_secs(1))?,
            },
            keys: read.keys()?,
            storage: read.storage()?,
            sales: SalesSettings {
                models_dir: read.text("IMAGEGATE_MODELS_DIR").map(PathBuf::from),
                aliases_file: read.text("IMAGEGATE_ALIASES_FILE").map(PathBuf::from),
                markup,
                deadline: read.positive_duration("IMAGEGATE_DEADLINE", Duration::from_mins(5))?,
            },
            projects: ProjectSettings {
                requests_per_minute: read.rate("IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE", 600)?,
                images_per_minute: read.rate("IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE", 1200)?,
            },
            log: LogSettings {
                filter: read.text("IMAGEGATE_LOG").unwrap_or("info").to_owned(),
                json,
                otlp_endpoint: match read.text("OTEL_EXPORTER_OTLP_ENDPOINT") {
                    Some(_) => Some(read.base_url("OTEL_EXPORTER_OTLP_ENDPOINT", "")?),
                    None => None,
                },
            },
        })
    }
}

fn bad(name: &'static str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::Bad { name, value: value.to_owned(), allowed: allowed.to_owned() }
}

/// The host, and the port if one is written, of an address.
fn host_of(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    url.host_str().map(str::to_owned)
}
