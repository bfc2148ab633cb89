//! Reads settings as what they should be: addresses, times, sizes, keys.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::{ConfigError, FalKey, KeySettings, Secret, TlsSettings, bad};
use crate::domain::{MemoryBudget, Network, NetworkError};

/// Looks values up and reads them as what they should be.
pub(super) struct Reader<'a>(pub(super) &'a BTreeMap<String, String>);

impl Reader<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn parse<T: std::str::FromStr>(
        &self,
        name: &'static str,
        default: T,
        allowed: &str,
    ) -> Result<T, ConfigError> {
        self.text(name).map_or(Ok(default), |value| value.parse().map_err(|_| bad(name, value, allowed)))
    }

    pub(super) fn address(&self, name: &'static str, default: &str) -> Result<SocketAddr, ConfigError> {
        let value = self.text(name).unwrap_or(default);
        let resolved = std::net::ToSocketAddrs::to_socket_addrs(value).ok().and_then(|mut all| all.next());
        resolved.ok_or_else(|| bad(name, value, "an address and port such as `127.0.0.1:8080`"))
    }

    pub(super) fn base_url(&self, name: &'static str, default: &str) -> Result<String, ConfigError> {
        let value = self.text(name).unwrap_or(default);
        let allowed = "an address such as `https://queue.fal.run`, without query";
        let url = url::Url::parse(value).map_err(|_| bad(name, value, allowed))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.query().is_some() {
            return Err(bad(name, value, allowed));
        }
        Ok(value.trim_end_matches('/').to_owned())
    }

    pub(super) fn database_url(&self) -> Result<String, ConfigError> {
        let value = self.text("DATABASE_URL").unwrap_or("sqlite://data/imagegate.db");
        let scheme = value.split(':').next().unwrap_or_default();
        if matches!(scheme, "sqlite" | "postgres" | "postgresql") {
            return Ok(value.to_owned());
        }
        // What was set may carry a password: name only its scheme.
        Err(bad("DATABASE_URL", &format!("{scheme}:…"), "an address that starts with `postgres://` or `sqlite://`"))
    }

    /// The address of a PostgreSQL server, where one is set.
    pub(super) fn postgres_url(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let scheme = value.split(':').next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(bad(name, &format!("{scheme}:…"), "an address that starts with `postgres://`"));
        }
        if !self.database_url()?.starts_with("postgres") {
            return Err(bad(
                name,
                &format!("{scheme}:…"),
                "nothing, unless DATABASE_URL starts with `postgres://` too",
            ));
        }
        Ok(Some(value.to_owned()))
    }

    pub(super) fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.text(name).map_or(Ok(default), |value| {
            parse_duration(value).ok_or_else(|| bad(name, value, "a time such as `300s`, `500ms`, `5m` or `1h`"))
        })
    }

    pub(super) fn positive_duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        let duration = self.duration(name, default)?;
        if duration < Duration::from_secs(1) {
            return Err(bad(name, self.text(name).unwrap_or_default(), "a time of at least `1s`"));
        }
        Ok(duration)
    }

    pub(super) fn networks(&self, name: &'static str) -> Result<Vec<Network>, ConfigError> {
        let parts = self.list(name, "networks such as `10.0.0.0/8`, with commas between them")?.unwrap_or_default();
        parts
            .into_iter()
            .map(|part| part.parse().map_err(|fault: NetworkError| bad(name, &part, &fault.to_string())))
            .collect()
    }

    /// Names of hosts, in lower case as addresses have them.
    pub(super) fn hosts(&self, name: &'static str, default: &str) -> Result<Vec<String>, ConfigError> {
        let allowed = "names of hosts with commas between them, such as `fal.media`, or `*.fal.media` for all below it";
        let hosts = self.list(name, allowed)?.unwrap_or_else(|| list(default));
        match hosts.iter().find(|host| !is_host(host.strip_prefix("*.").unwrap_or(host))) {
            Some(wrong) => Err(bad(name, wrong, allowed)),
            None => Ok(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
        }
    }

    /// Origins of browsers, as these write them; `None` is everybody's.
    pub(super) fn origins(&self, name: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let allowed = "`*` alone, or origins as `scheme://host` or `scheme://host:port`, without a path, with commas between them";
        let Some(origins) = self.list(name, allowed)?.filter(|origins| origins.as_slice() != ["*"]) else {
            return Ok(None);
        };
        let read = |text: &String| origin(text).ok_or_else(|| bad(name, text, allowed));
        origins.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// What stands between commas; `None` if it is not set, and an error if there are only commas.
    fn list(&self, name: &'static str, allowed: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let parts = list(text);
        if parts.is_empty() { Err(bad(name, text, allowed)) } else { Ok(Some(parts)) }
    }

    pub(super) fn tls(&self) -> Result<Option<TlsSettings>, ConfigError> {
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

    pub(super) fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(bad(name, other, "`true` or `false`")),
        }
    }

    pub(super) fn size(&self, name: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.text(name).map_or(Ok(default), |value| {
            parse_size(value).ok_or_else(|| bad(name, value, "a size such as `32MiB`, `512KiB` or a number of bytes"))
        })
    }

    /// `IMAGEGATE_MEMORY_LIMIT`, which must hold the largest body.
    pub(super) fn memory_limit(&self, body_limit: usize) -> Result<Option<usize>, ConfigError> {
        const NAME: &str = "IMAGEGATE_MEMORY_LIMIT";
        let Some(text) = self.text(NAME) else { return Ok(None) };
        let limit = self.size(NAME, 0)?;
        let least = MemoryBudget::least_for(body_limit as u64);
        if (limit as u64) < least {
            let allowed = format!("at least {least} bytes, for bodies of {body_limit} bytes (`IMAGEGATE_BODY_LIMIT`)");
            return Err(bad(NAME, text, &allowed));
        }
        Ok(Some(limit))
    }

    /// A number above zero, or `none` for no limit.
    pub(super) fn rate(&self, name: &'static str, default: u32) -> Result<Option<u32>, ConfigError> {
        match self.text(name) {
            None => Ok(Some(default)),
            Some("none") => Ok(None),
            Some(text) => {
                let rate = text.parse().ok().filter(|rate| *rate > 0);
                rate.map(Some).ok_or_else(|| bad(name, text, "a whole number above zero, or `none` for no limit"))
            }
        }
    }

    pub(super) fn keys(&self) -> Result<KeySettings, ConfigError> {
        let keys =
            KeySettings { admin: self.key("IMAGEGATE_ADMIN_KEY")?, bootstrap: self.key("IMAGEGATE_BOOTSTRAP_KEY")? };
        if keys.admin.is_some() && keys.admin == keys.bootstrap {
            return Err(bad(
                "IMAGEGATE_BOOTSTRAP_KEY",
                "…",
                "a value of its own, other than that of IMAGEGATE_ADMIN_KEY",
            ));
        }
        Ok(keys)
    }

    pub(super) fn key(&self, name: &'static str) -> Result<Option<Secret>, ConfigError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let fits = (16..=1024).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            return Err(bad(name, "…", "16 to 1024 visible ASCII characters without spaces"));
        }
        if is_easily_guessed(value) {
            let allowed =
                "a value that cannot be guessed and stands in no example; make one with `openssl rand -hex 32`";
            return Err(bad(name, "…", allowed));
        }
        Ok(Some(Secret::new(value)))
    }

    pub(super) fn key_concurrency(&self) -> Result<Option<usize>, ConfigError> {
        let name = "FAL_KEY_CONCURRENCY";
        let Some(value) = self.text(name) else { return Ok(None) };
        let limit = value.parse().ok().filter(|limit| *limit >= 1);
        limit.map(Some).ok_or_else(|| bad(name, value, "a whole number of at least 1, or nothing for no limit"))
    }

    /// `key*weight,key*weight`; a key without a weight counts once.
    pub(super) fn fal_keys(&self) -> Result<Vec<FalKey>, ConfigError> {
        let allowed = "`key_id:key_secret`, or several as `key*weight,key*weight` with weights of at least 1";
        let mut keys = Vec::new();
        let parts = match self.text("FAL_KEY").map(list) {
            Some(parts) if parts.is_empty() => return Err(bad("FAL_KEY", "…", allowed)),
            parts => parts.unwrap_or_default(),
        };
        for part in parts {
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

/// A name of a host, or an address in its place.
fn is_host(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = text.split('.').all(|label| !label.is_empty() && label.bytes().all(letter));
    let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    is_name || in_brackets.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// An origin as browsers write it: in lower case, and without the port that its scheme has anyway.
fn origin(text: &str) -> Option<String> {
    let (scheme, place) = text.split_once("://")?;
    let url = url::Url::parse(text).ok()?;
    let host = url.host_str().filter(|host| is_host(host))?;
    let named = match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    };
    let plain = !scheme.is_empty() && !place.contains(['/', '?', '#', '@', '\\']);
    plain.then_some(named)
}

/// The parts of a text between its commas.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
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
pub(super) fn parse_size(text: &str) -> Option<usize> {
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

/// Values that stand in our own example files.
const EXAMPLES: [&str; 2] = ["at-least-sixteen-characters", "replace-me-by-32-random-bytes-in-hex"];

/// What keys of ours begin with; it makes none harder to guess.
const PREFIXES: [&str; 2] = ["sk-ig-admin-", "sk-ig-"];

/// A secret of fewer different characters than this is a pattern: one made at random has more.
const FEWEST_LETTERS: usize = 8;

/// Whether a secret takes fewer than ten thousand million guesses (zxcvbn's score below 4), or what follows a prefix of ours
/// fewer than a hundred million (below 3), or it is one of our examples.
fn is_easily_guessed(value: &str) -> bool {
    let secret = PREFIXES.iter().find_map(|prefix| value.strip_prefix(prefix)).unwrap_or(value);
    let letters: HashSet<char> = secret.chars().collect();
    EXAMPLES.contains(&value)
        || letters.len() < FEWEST_LETTERS
        || zxcvbn::zxcvbn(value, &[]).score() < zxcvbn::Score::Four
        || zxcvbn::zxcvbn(secret, &[]).score() < zxcvbn::Score::Three
}
