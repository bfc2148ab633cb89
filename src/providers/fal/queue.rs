//! The addresses of requests at fal's queue, and which addresses are fal's.

use std::borrow::Cow;

use tracing::warn;
use url::Url;

use super::wire;
use crate::providers::Ticket;

/// Where fal's queue is.
#[derive(Debug)]
pub(super) struct Queue {
    url: Url,
    /// Scheme, host and port of `url`, without a trailing slash.
    origin: String,
    /// The same as an address.
    root: Url,
}

impl Queue {
    /// The queue at `address`.
    pub(super) fn new(address: &str) -> Result<Self, url::ParseError> {
        let url = Url::parse(address)?;
        let origin = url.origin().ascii_serialization();
        Ok(Self { root: Url::parse(&origin)?, origin, url })
    }

    /// Where an endpoint is submitted to.
    pub(super) fn submit_url(&self, endpoint: &str) -> String {
        format!("{}/{endpoint}", self.url.as_str().trim_end_matches('/'))
    }

    /// An address of the queue whose plain path is put behind the queue's origin, which need not be taken apart again for
    /// each request; `None` for every other address.
    pub(super) fn plain(&self, address: &str) -> Option<Url> {
        let path = address.strip_prefix(&self.origin)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
        if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(is_plain) {
            return None;
        }
        let mut url = self.root.clone();
        url.set_path(path);
        Some(url)
    }

    /// The address of a request at the queue: `{owner}/{alias}` only, whatever sub-path was called.
    fn request_url(&self, endpoint: &str, request_id: &str) -> String {
        let base = self.url.as_str().trim_end_matches('/');
        format!("{base}/{}/requests/{request_id}", application_of(endpoint))
    }

    /// An address that fal gave, if it is on fal's queue; else the one that fal's rule makes. Our key goes nowhere else.
    fn trusted(&self, given: Option<String>, otherwise: impl Fn() -> String) -> String {
        match given {
            Some(given) if self.is_ours(&given) => given,
            Some(given) => {
                let host =
                    Url::parse(&given).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
                warn!(host, "fal names an address on another host; using the queue's own");
                otherwise()
            }
            None => otherwise(),
        }
    }

    fn is_ours(&self, address: &str) -> bool {
        // What begins with the origin and a slash has it; anything else is taken apart.
        address.strip_prefix(&self.origin).is_some_and(|rest| rest.starts_with('/'))
            || Url::parse(address).is_ok_and(|url| url.origin() == self.url.origin())
    }

    pub(super) fn ticket_of(&self, endpoint: &str, label: &str, answer: wire::Submitted) -> Ticket {
        let base = || self.request_url(endpoint, &answer.request_id);
        Ticket {
            endpoint: endpoint.to_owned(),
            credential: label.to_owned(),
            status_url: self.trusted(answer.status_url, || format!("{}/status", base())),
            response_url: self.trusted(answer.response_url, base),
            cancel_url: self.trusted(answer.cancel_url, || format!("{}/cancel", base())),
            request_id: answer.request_id,
        }
    }

    /// A ticket's address, moved to the present queue when it was written for another one (a stand-in that came back
    /// on another port).
    pub(super) fn address_for<'a>(&self, ticket: &Ticket, address: &'a str) -> Cow<'a, str> {
        if self.is_ours(address) {
            return Cow::Borrowed(address);
        }
        let base = self.request_url(&ticket.endpoint, &ticket.request_id);
        Cow::Owned(match address.rsplit('/').next() {
            Some("status") => format!("{base}/status"),
            Some("cancel") => format!("{base}/cancel"),
            _ => base,
        })
    }
}

/// `fal-ai/flux/dev` → `fal-ai/flux`; with the namespaces `workflows` and `comfy`, one segment more.
fn application_of(endpoint: &str) -> String {
    let namespaced = matches!(endpoint.split('/').next(), Some("workflows" | "comfy"));
    endpoint.split('/').take(if namespaced { 3 } else { 2 }).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new("https://queue.fal.run").unwrap()
    }

    #[test]
    fn a_requests_address_has_the_owner_and_alias_only() {
        assert_eq!(application_of("fal-ai/flux/dev"), "fal-ai/flux");
        assert_eq!(application_of("fal-ai/flux-realism"), "fal-ai/flux-realism");
        assert_eq!(application_of("workflows/me/app/x"), "workflows/me/app");
    }

    #[test]
    fn an_address_put_together_is_the_one_taken_apart() {
        let queue = queue();
        for path in ["/fal-ai/flux/requests/1/status", "/fal-ai/../x", "/", "/a//b", "/fal_ai/v1.1/"] {
            let address = format!("https://queue.fal.run{path}");
            assert_eq!(queue.plain(&address), Url::parse(&address).ok(), "{address}");
        }
        for other in [
            "https://queue.fal.run",
            "https://queue.fal.run//evil.example/x",
            "https://queue.fal.run/x?logs=1",
            "https://queue.fal.run/x#y",
            "https://queue.fal.run.evil.example/x",
            "https://queue.fal.run@evil.example/x",
            "https://queue.fal.run:444/x",
            "https://queue.fal.run/%2e%2e/x",
            "https://queue.fal.run\\evil",
        ] {
            assert_eq!(queue.plain(other), None, "{other}");
        }
    }

    #[test]
    fn our_key_is_sent_to_the_queue_only() {
        let queue = queue();
        let given = |host: &str| Some(format!("https://{host}/fal-ai/flux/requests/1"));
        let ticket = queue.ticket_of(
            "fal-ai/flux/dev",
            "label",
            wire::Submitted {
                request_id: "1".into(),
                response_url: given("evil.example"),
                status_url: given("queue.fal.run.evil.example"),
                cancel_url: given("queue.fal.run"),
            },
        );
        assert_eq!(ticket.response_url, "https://queue.fal.run/fal-ai/flux/requests/1");
        assert_eq!(ticket.status_url, "https://queue.fal.run/fal-ai/flux/requests/1/status");
        assert_eq!(ticket.cancel_url, "https://queue.fal.run/fal-ai/flux/requests/1");
    }

    #[test]
    fn a_ticket_of_another_queue_is_asked_for_at_the_present_one() {
        let queue = queue();
        let ticket = Ticket {
            endpoint: "fal-ai/flux/dev".into(),
            credential: "gone".into(),
            request_id: "7".into(),
            status_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7/status".into(),
            response_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7".into(),
            cancel_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7/cancel".into(),
        };
        assert_eq!(
            queue.address_for(&ticket, &ticket.status_url),
            "https://queue.fal.run/fal-ai/flux/requests/7/status"
        );
        assert_eq!(queue.address_for(&ticket, &ticket.response_url), "https://queue.fal.run/fal-ai/flux/requests/7");
    }

    #[test]
    fn a_submit_that_names_no_addresses_is_asked_for_by_fals_rule() {
        let answer = wire::Submitted { request_id: "9".into(), response_url: None, status_url: None, cancel_url: None };
        let ticket = queue().ticket_of("fal-ai/recraft/v2/text-to-image", "label", answer);
        assert_eq!(ticket.status_url, "https://queue.fal.run/fal-ai/recraft/requests/9/status");
        assert_eq!(ticket.response_url, "https://queue.fal.run/fal-ai/recraft/requests/9");
        assert_eq!(ticket.cancel_url, "https://queue.fal.run/fal-ai/recraft/requests/9/cancel");
    }
}
