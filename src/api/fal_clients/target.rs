//! What an address of fal's asks for. Addresses are read, never called.

use url::Url;

/// Hosts of fal's queue; the second is what its clients fall back on.
const QUEUE_HOSTS: [&str; 2] = ["queue.fal.run", "queue.falrun.com"];
/// Hosts of fal's direct runs.
const RUN_HOSTS: [&str; 2] = ["fal.run", "falrun.com"];
/// Hosts of fal's storage.
const REST_HOSTS: [&str; 2] = ["rest.fal.ai", "rest.alpha.fal.ai"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// `POST`: a request for the queue.
    Submit(String),
    /// About a request of the queue.
    Request {
        /// Owner and alias, as the address has them.
        application: String,
        /// The request's id, as the address has it.
        id: String,
        /// What about it.
        verb: Verb,
    },
    /// `POST`: a run on one connection.
    Run(String),
    /// `POST`: the same as a stream.
    Stream(String),
    /// `POST`: a place to upload a file to.
    Upload,
}

/// What is asked about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Where it stands.
    Status,
    /// The same as a stream of changes.
    StatusStream,
    /// What it came to.
    Result,
    /// To give it up.
    Cancel,
}

impl Target {
    /// What an address of `x-fal-target-url` asks for, and its query; `None` where it is not one of fal's that is served
    /// here.
    pub fn of_address(address: &str) -> Option<(Self, String)> {
        let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let url = Url::parse(&address).ok().filter(|url| url.scheme() == "https" && url.port().is_none())?;
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let (host, path) = (url.host_str()?, url.path());
        let target = if QUEUE_HOSTS.contains(&host) {
            Self::of_queue(path)
        } else if RUN_HOSTS.contains(&host) {
            Self::of_run(path)
        } else if REST_HOSTS.contains(&host) && path.trim_end_matches('/') == "/storage/upload/initiate" {
            Some(Self::Upload)
        } else {
            None
        };
        Some((target?, url.query().unwrap_or_default().to_owned()))
    }

    /// A path below the queue's host. The full id before `/requests/` and a slash at the end are taken as well.
    pub fn of_queue(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let Some(at) = parts.iter().position(|part| *part == "requests").filter(|at| *at > 0) else {
            return (!parts.is_empty()).then(|| Self::Submit(parts.join("/")));
        };
        let verb = match parts.get(at + 2..)? {
            [] | ["response"] => Verb::Result,
            ["status"] => Verb::Status,
            ["status", "stream"] => Verb::StatusStream,
            ["cancel"] => Verb::Cancel,
            _ => return None,
        };
        let application = application_of(&parts.get(..at)?.join("/"));
        Some(Self::Request { application, id: (*parts.get(at + 1)?).to_owned(), verb })
    }

    /// A path below the host of direct runs.
    pub fn of_run(path: &str) -> Option<Self> {
        let id = path.trim_matches('/');
        match id.strip_suffix("/stream") {
            _ if id.is_empty() => None,
            Some(id) => Some(Self::Stream(id.to_owned())),
            None => Some(Self::Run(id.to_owned())),
        }
    }
}

/// Owner and alias of an endpoint: requests of the queue are known under them, whatever path below was called.
pub fn application_of(endpoint: &str) -> String {
    endpoint.split('/').take(2).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Option<Target> {
        Target::of_address(address).map(|(target, _)| target)
    }

    #[test]
    fn the_addresses_of_fals_clients_are_understood() {
        let about = |verb| Target::Request { application: "fal-ai/flux".into(), id: "7".into(), verb };
        for (address, expected) in [
            ("https://queue.fal.run/fal-ai/flux/dev", Target::Submit("fal-ai/flux/dev".into())),
            ("queue.fal.run/fal-ai/flux/dev/", Target::Submit("fal-ai/flux/dev".into())),
            ("https://queue.fal.run/fal-ai/flux/requests/7/status?logs=1", about(Verb::Status)),
            ("https://queue.fal.run/fal-ai/flux/dev/requests/7/status/stream", about(Verb::StatusStream)),
            ("https://queue.fal.run/fal-ai/flux/requests/7", about(Verb::Result)),
            ("https://queue.fal.run/fal-ai/flux/requests/7/response/", about(Verb::Result)),
            ("https://queue.falrun.com/fal-ai/flux/requests/7/cancel", about(Verb::Cancel)),
            ("https://fal.run/fal-ai/flux/dev", Target::Run("fal-ai/flux/dev".into())),
            ("https://fal.run/fal-ai/flux/dev/stream", Target::Stream("fal-ai/flux/dev".into())),
            ("https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", Target::Upload),
        ] {
            assert_eq!(target(address), Some(expected), "{address}");
        }
        let (_, query) = Target::of_address("https://queue.fal.run/a/b?fal_webhook=https%3A%2F%2Fx").unwrap();
        assert_eq!(query, "fal_webhook=https%3A%2F%2Fx");
    }

    #[test]
    fn every_other_address_is_nothing() {
        for address in [
            "",
            "https://example.com/fal-ai/flux/dev",
            "https://queue.fal.run.evil.example/fal-ai/flux/dev",
            "https://queue.fal.run@evil.example/fal-ai/flux/dev",
            "https://evil@queue.fal.run/fal-ai/flux/dev",
            "https://queue.fal.run:8443/fal-ai/flux/dev",
            "http://queue.fal.run/fal-ai/flux/dev",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "https://rest.fal.ai/tokens/",
            "https://rest.fal.ai/storage/upload/initiate/../../../billing",
            "https://queue.fal.run/",
            "https://queue.fal.run/fal-ai/flux/requests/7/delete",
        ] {
            assert_eq!(target(address), None, "{address}");
        }
    }
}
