//! All settings, one struct per room; nobody else reads the environment.
//!
//! A setting is looked up in the environment, then in `.env`, then in `imagegate.toml`, where the section and the key
//! together spell the variable: `[imagegate] bind = …` is `IMAGEGATE_BIND`, `[fal] key = …` is `FAL_KEY`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Fixed, Network, NetworkError};

mod files;
mod storage;
#[cfg(test)]
mod tests;

use files::{read_dotenv, read_toml};
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
    /// `IMAGEGATE_MARKUP`: selling price = fal's price × this.
    pub markup: Fixed,
    /// `IMAGEGATE_DEADLINE`: longest wait for one image, if its model file has none.
    pub deadline: Duration,
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
    "IMAGEGATE_BODY_LIMIT",
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
        let mut media_hosts =
            read.text("FAL_MEDIA_HOSTS").map_or_else(|| vec!["fal.media".to_owned(), "*.fal.media".to_owned()], list);
        media_hosts.extend([&queue_url, &run_url, &rest_url].iter().filter_map(|url| host_of(url)));
        let success_status = read.parse("IMAGEGATE_SUCCESS_STATUS", 201_u16, "200 or 201")?;
        if !matches!(success_status, 200 | 201) {
            return Err(bad("IMAGEGATE_SUCCESS_STATUS", &success_status.to_string(), "200 or 201"));
        }
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
                body_limit: read.size("IMAGEGATE_BODY_LIMIT", 32 * 1024 * 1024)?,
                cors_origins: match read.text("IMAGEGATE_CORS_ORIGINS") {
                    None | Some("*") => None,
                    Some(origins) => Some(list(origins)),
                },
                webhook_allow_private: read.switch("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE")?,
                trusted_proxies: read.networks("IMAGEGATE_TRUSTED_PROXIES")?,
                tls: read.tls()?,
                shutdown_delay: read.duration("IMAGEGATE_SHUTDOWN_DELAY", Duration::ZERO)?,
                success_status,
            },
            database_url: read.database_url()?,
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
            keys: KeySettings {
                admin: read.key("IMAGEGATE_ADMIN_KEY")?,
                bootstrap: read.key("IMAGEGATE_BOOTSTRAP_KEY")?,
            },
            storage: read.storage()?,
            sales: SalesSettings {
                models_dir: read.text("IMAGEGATE_MODELS_DIR").map(PathBuf::from),
                markup,
                deadline: read.positive_duration("IMAGEGATE_DEADLINE", Duration::from_mins(5))?,
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

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The host, and the port if one is written, of an address.
fn host_of(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    url.host_str().map(str::to_owned)
}

/// Looks values up and reads them as what they should be.
struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn parse<T: std::str::FromStr>(&self, name: &'static str, default: T, allowed: &str) -> Result<T, ConfigError> {
        self.text(name).map_or(Ok(default), |value| value.parse().map_err(|_| bad(name, value, allowed)))
    }

    fn address(&self, name: &'static str, default: &str) -> Result<SocketAddr, ConfigError> {
        let value = self.text(name).unwrap_or(default);
        let resolved = std::net::ToSocketAddrs::to_socket_addrs(value).ok().and_then(|mut all| all.next());
        resolved.ok_or_else(|| bad(name, value, "an address and port such as `127.0.0.1:8080`"))
    }

    fn base_url(&self, name: &'static str, default: &str) -> Result<String, ConfigError> {
        let value = self.text(name).unwrap_or(default);
        let allowed = "an address such as `https://queue.fal.run`, without query";
        let url = url::Url::parse(value).map_err(|_| bad(name, value, allowed))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.query().is_some() {
            return Err(bad(name, value, allowed));
        }
        Ok(value.trim_end_matches('/').to_owned())
    }

    fn database_url(&self) -> Result<String, ConfigError> {
        let value = self.text("DATABASE_URL").unwrap_or("sqlite://data/imagegate.db");
        let scheme = value.split(':').next().unwrap_or_default();
        if matches!(scheme, "sqlite" | "postgres" | "postgresql") {
            return Ok(value.to_owned());
        }
        // What was set may carry a password: name only its scheme.
        Err(bad("DATABASE_URL", &format!("{scheme}:…"), "an address that starts with `postgres://` or `sqlite://`"))
    }

    fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.text(name).map_or(Ok(default), |value| {
            parse_duration(value).ok_or_else(|| bad(name, value, "a time such as `300s`, `500ms`, `5m` or `1h`"))
        })
    }

    fn positive_duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        let duration = self.duration(name, default)?;
        if duration < Duration::from_secs(1) {
            return Err(bad(name, self.text(name).unwrap_or_default(), "a time of at least `1s`"));
        }
        Ok(duration)
    }

    fn networks(&self, name: &'static str) -> Result<Vec<Network>, ConfigError> {
        let parts = list(self.text(name).unwrap_or_default()).into_iter();
        parts.map(|part| part.parse().map_err(|fault: NetworkError| bad(name, &part, &fault.to_string()))).collect()
    }

    fn tls(&self) -> Result<Option<TlsSettings>, ConfigError> {
        let (certificate, key) = (self.text("IMAGEGATE_TLS_CERT"), self.text("IMAGEGATE_TLS_KEY"));
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some(TlsSettings { certificate: certificate.into(), key: key.into() }))
            }
            (Some(_), None) => {
                Err(bad("IMAGEGATE_TLS_KEY", "", "the file of the key, since IMAGEGATE_TLS_CERT is set"))
            }
            (None, Some(_)) => {
                Err(bad("IMAGEGATE_TLS_CERT", "", "the file of the certificate, since IMAGEGATE_TLS_KEY is set"))
            }
        }
    }

    fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(bad(name, other, "`true` or `false`")),
        }
    }

    fn size(&self, name: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.text(name).map_or(Ok(default), |value| {
            parse_size(value).ok_or_else(|| bad(name, value, "a size such as `32MiB`, `512KiB` or a number of bytes"))
        })
    }

    fn key(&self, name: &'static str) -> Result<Option<Secret>, ConfigError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let fits = value.len() >= 16 && value.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            return Ok(Some(Secret::new(value)));
        }
        Err(bad(name, "…", "at least 16 visible ASCII characters without spaces"))
    }

    fn key_concurrency(&self) -> Result<Option<usize>, ConfigError> {
        let name = "FAL_KEY_CONCURRENCY";
        let Some(value) = self.text(name) else { return Ok(None) };
        let limit = value.parse().ok().filter(|limit| *limit >= 1);
        limit.map(Some).ok_or_else(|| bad(name, value, "a whole number of at least 1, or nothing for no limit"))
    }

    /// `key*weight,key*weight`; a key without a weight counts once.
    fn fal_keys(&self) -> Result<Vec<FalKey>, ConfigError> {
        let allowed = "`key_id:key_secret`, or several as `key*weight,key*weight` with weights of at least 1";
        let mut keys = Vec::new();
        for part in list(self.text("FAL_KEY").unwrap_or_default()) {
            let (key, weight) = part.rsplit_once('*').unwrap_or((&part, "1"));
            let weight = weight.trim().parse().ok().filter(|weight| *weight >= 1);
            let key = key.trim();
            match weight {
                Some(weight) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    keys.push(FalKey { key: Secret::new(key), weight });
                }
                _ => return Err(bad("FAL_KEY", "…", allowed)),
            }
        }
        Ok(keys)
    }
}

/// `300s`, `500ms`, `5m`, `1h`, or a bare number of seconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// `32MiB`, `512KiB`, `1GiB`, `1000` (bytes); at least one byte.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}
