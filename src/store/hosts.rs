//! Addresses of PostgreSQL: several servers in one, and which of them is written to.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use url::Url;

use super::connection::within;
use super::error::Unreachable;
use super::open::bad_address;
use super::{Outage, StoreError};

/// How many statements a connection keeps prepared: a batch of the books is one statement, whose text depends on what is in it.
const STATEMENTS: usize = 256;

/// What a server must be that is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Writable,
}

/// The servers that an address names, and the one in use.
#[derive(Debug)]
pub(super) struct Servers {
    all: Vec<PgConnectOptions>,
    wanted: Wanted,
    current: ArcSwap<PgConnectOptions>,
    /// Whether the address says that they are behind a transaction pooler.
    pub(super) pooled: bool,
}

impl Servers {
    /// Reads `postgres://user@host1:5432,host2:5432/name?target_session_attrs=read-write`, and without lists the usual form.
    pub(super) fn of(address: &str) -> Result<Self, StoreError> {
        let (mut all, mut wanted, mut pooled) = (Vec::new(), Wanted::Any, false);
        for one in each_host(address) {
            let mut url = Url::parse(&one).map_err(|error| bad_address(address, &error))?;
            let (ours, theirs): (Vec<_>, Vec<_>) =
                url.query_pairs().into_owned().partition(|(name, _)| OURS.contains(&name.as_str()));
            for (name, value) in &ours {
                match (name.as_str(), value.as_str()) {
                    ("pgbouncer", "true" | "1") => pooled = true,
                    ("pgbouncer", "false" | "0") | ("target_session_attrs", "any") => {}
                    ("target_session_attrs", "read-write" | "primary") => wanted = Wanted::Writable,
                    _ => {
                        let reason = format!(
                            "`{name}={value}` is not supported; `target_session_attrs` is `any`, `read-write` or `primary`, `pgbouncer` is `true` or `false`"
                        );
                        return Err(bad_address(address, &reason));
                    }
                }
            }
            if !ours.is_empty() {
                url.set_query(None);
                if !theirs.is_empty() {
                    url.query_pairs_mut().extend_pairs(&theirs);
                }
            }
            let connect = PgConnectOptions::from_str(url.as_str())
                .map_err(|error| bad_address(address, &error))?
                .application_name("imagegate")
                // No number of ours is a float, and poolers refuse what they do not know.
                .extra_float_digits(None)
                .statement_cache_capacity(STATEMENTS)
                // Slow ones are told; a line for each would be made from its text even where nobody wants it.
                .log_statements(log::LevelFilter::Off);
            all.push(connect);
        }
        let first = all.first().ok_or_else(|| bad_address(address, &"it names no server"))?;
        let current = ArcSwap::from_pointee(first.clone());
        Ok(Self { all, wanted, current, pooled })
    }

    /// The server in use.
    pub(super) fn current(&self) -> Arc<PgConnectOptions> {
        self.current.load_full()
    }

    /// Looks for a server that is what is wanted, first among those in use; `limit` is for each. Whether it is another one
    /// than before.
    pub(super) async fn choose(&self, limit: Duration) -> Result<bool, StoreError> {
        if self.all.len() == 1 && self.wanted == Wanted::Any {
            return Ok(false);
        }
        let mut failure = None;
        let before = self.current();
        let others = self.all.iter().filter(|one| !same(one, &before));
        for candidate in std::iter::once(&*before).chain(others) {
            match within(limit, async { Ok(is_writable(candidate).await?) }).await {
                Ok(writable) if writable || self.wanted == Wanted::Any => {
                    let is_another = !same(candidate, &before);
                    self.current.store(Arc::new(candidate.clone()));
                    return Ok(is_another);
                }
                Ok(_) => {
                    let standby = format!("`{}:{}` can only be read", candidate.get_host(), candidate.get_port());
                    failure = Some(StoreError::Unreachable(Unreachable::new(Outage::ReadOnly, standby)));
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(false), Err)
    }
}

/// What an address may say beside what the driver reads.
const OURS: [&str; 2] = ["pgbouncer", "target_session_attrs"];

fn same(one: &PgConnectOptions, other: &PgConnectOptions) -> bool {
    (one.get_host(), one.get_port()) == (other.get_host(), other.get_port())
}

/// The same address once for each of its hosts.
fn each_host(address: &str) -> Vec<String> {
    let Some((scheme, rest)) = address.split_once("://") else { return vec![address.to_owned()] };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{tail}")).collect()
}

async fn is_writable(connect: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut connection = connect.connect().await?;
    let sql = "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";
    let writable = sqlx::query(sql).persistent(false).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(writable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_server_or_several() {
        let several =
            Servers::of("postgres://ada:s%40,x@one:1,two:2/books?target_session_attrs=read-write&sslmode=disable")
                .unwrap();
        let places: Vec<_> =
            several.all.iter().map(|one| (one.get_host(), one.get_port(), one.get_database())).collect();
        assert_eq!(places, [("one", 1, Some("books")), ("two", 2, Some("books"))]);
        assert_eq!((several.wanted, several.pooled), (Wanted::Writable, false));
        let one = Servers::of("postgres://ada@[::1]:5/books?pgbouncer=true").unwrap();
        assert_eq!((one.all.len(), one.wanted, one.pooled), (1, Wanted::Any, true));
        for wrong in ["target_session_attrs=standby", "pgbouncer=maybe"] {
            let error = Servers::of(&format!("postgres://ada:secret@one/books?{wrong}")).unwrap_err().to_string();
            assert!(error.contains(wrong) && !error.contains("secret"), "{error}");
        }
    }
}
