//! Who may be called: addresses of the public internet, unless the operator allows others. Checked when a call is asked
//! for and again at every try, after the name was looked up; redirects are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Longest address.
const LONGEST: usize = 2048;
/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer; Standard Webhooks asks for 15 to 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no address.
    #[error("must be an `https://` or `http://` address with a host, of at most {LONGEST} characters")]
    NoAddress,
    /// It carries a password, which would end up in the delivery log.
    #[error("must not carry a user name or password: check the signature instead")]
    Credentials,
    /// It is not on the public internet, or leads nowhere; one text for both, which tells nothing about private networks.
    #[error("`{0}` does not lead to an address on the public internet")]
    Private(String),
}

/// Whether an address may be called, as far as that can be told without looking its name up.
pub(super) fn check(address: &str, allow_private: bool) -> Result<Url, TargetError> {
    let url = Url::parse(address).map_err(|_| TargetError::NoAddress)?;
    if address.len() > LONGEST || !matches!(url.scheme(), "http" | "https") {
        return Err(TargetError::NoAddress);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::Credentials);
    }
    let is_private = match url.host() {
        None => return Err(TargetError::NoAddress),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
    };
    if is_private && !allow_private {
        return Err(TargetError::Private(url.host_str().unwrap_or_default().to_owned()));
    }
    Ok(url)
}

/// Host and port of an address, which is what calls are shared out by.
pub(super) fn host_of(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// The client for the calls. A name that leads nowhere public is not called, whatever it led to before.
pub(super) fn client(allow_private: bool) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("imagegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would look names up itself.
        .no_proxy()
        // A kept connection would be used without a look at where the name leads now.
        .pool_max_idle_per_host(0);
    if allow_private { builder.build() } else { builder.dns_resolver(std::sync::Arc::new(PublicOnly)).build() }
}

/// Looks names up and leaves out what is not public.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let public: Vec<SocketAddr> =
                found.into_iter().flatten().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(TargetError::Private(name.as_str().to_owned()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is on the public internet: in none of IANA's special-purpose blocks (RFC 6890 and its registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || a >= 224
        || matches!((a, b), (169, 254) | (192, 168) | (172, 16..=31) | (100, 64..=127) | (198, 18 | 19))
        || matches!((a, b, c), (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4 in IPv6's clothes: mapped, translated (RFC 6052), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            inner(high, low)
        }
        // Teredo and other protocol assignments, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything that is allotted lies in 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_called() {
        for address in [
            "https://127.0.0.1/hook",
            "https://localhost:8080/",
            "http://LOCALHOST./",
            "https://10.1.2.3/",
            "https://172.31.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.100.100.200/",
            "https://0.0.0.0/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://metadata.google.internal/",
        ] {
            assert!(matches!(check(address, false), Err(TargetError::Private(_))), "{address}");
            assert!(check(address, true).is_ok(), "{address}");
        }
        for address in
            ["https://example.com/hook?a=b", "http://8.8.8.8:81/", "https://[2606:4700::1111]/", "https://172.32.0.1/"]
        {
            assert!(check(address, false).is_ok(), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_or_carries_a_password_is_refused() {
        for address in ["", "example.com", "ftp://example.com", "https://", "file:///etc/passwd", "javascript:alert(1)"]
        {
            assert_eq!(check(address, true).unwrap_err(), TargetError::NoAddress, "{address}");
        }
        assert_eq!(
            check(&format!("https://example.com/{}", "a".repeat(2048)), true).unwrap_err(),
            TargetError::NoAddress
        );
        assert_eq!(check("https://me:pw@example.com/", true).unwrap_err(), TargetError::Credentials);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_called() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = client(false).unwrap().post(format!("http://localhost:{port}/")).send().await.unwrap_err();
        assert!(fault.is_connect(), "{fault:?}");
        assert!(listener.accept().is_err(), "it was connected to");
    }
}
