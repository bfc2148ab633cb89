//! fal's paths: an endpoint's full id at submit, owner and alias before `/requests/…`.

use uuid::Uuid;

/// An endpoint as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The full id, such as `fal-ai/flux/dev`.
    pub id: String,
    /// Owner and alias, such as `fal-ai/flux`.
    pub prefix: String,
    /// The alias alone, such as `flux`.
    pub alias: String,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// An endpoint, to be run.
    Endpoint(Application),
    /// One request of an application.
    Request {
        /// Such as `fal-ai/flux`.
        prefix: String,
        /// The request; absent if the path holds no id there.
        id: Option<Uuid>,
        /// What is asked of it.
        verb: Verb,
    },
    /// None of these.
    Nothing,
}

/// What can be asked of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `…/status`
    Status,
    /// `…/status/stream`
    StatusStream,
    /// `…` or `…/response`
    Result,
    /// `…/cancel`
    Cancel,
}

/// Reads a path. The full id before `/requests/` and a slash at the end are taken as well, as fal's clients send both.
pub fn target(path: &str) -> Target {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let length = if matches!(parts.first(), Some(&("workflows" | "comfy"))) { 3 } else { 2 };
    let Some(application) = parts.get(..length) else {
        return Target::Nothing;
    };
    let prefix = application.join("/");
    let requests = parts.iter().skip(length).position(|part| *part == "requests");
    let Some(requests) = requests.map(|position| position + length) else {
        let alias = application.last().copied().unwrap_or_default().to_owned();
        return Target::Endpoint(Application { id: parts.join("/"), prefix, alias });
    };
    let verb = match parts.get(requests + 2..) {
        Some([] | ["response"]) => Verb::Result,
        Some(["status"]) => Verb::Status,
        Some(["status", "stream"]) => Verb::StatusStream,
        Some(["cancel"]) => Verb::Cancel,
        _ => return Target::Nothing,
    };
    let id = parts.get(requests + 1).and_then(|id| Uuid::parse_str(id).ok());
    Target::Request { prefix, id, verb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submit_names_the_full_id() {
        let expected = Target::Endpoint(Application {
            id: "fal-ai/flux/dev".to_owned(),
            prefix: "fal-ai/flux".to_owned(),
            alias: "flux".to_owned(),
        });
        assert_eq!(target("/fal-ai/flux/dev"), expected);
        assert_eq!(target("/fal-ai/flux/dev/"), expected);
    }

    #[test]
    fn a_request_is_found_by_owner_and_alias_or_by_the_full_id() {
        let id = Uuid::from_u128(7);
        for (path, verb) in [
            (format!("/fal-ai/flux/requests/{id}"), Verb::Result),
            (format!("/fal-ai/flux/dev/requests/{id}/response"), Verb::Result),
            (format!("/fal-ai/flux/requests/{id}/"), Verb::Result),
            (format!("/fal-ai/flux/requests/{id}/status/"), Verb::Status),
            (format!("/fal-ai/flux/requests/{id}/status/stream"), Verb::StatusStream),
            (format!("/fal-ai/flux/requests/{id}/cancel"), Verb::Cancel),
        ] {
            let prefix = "fal-ai/flux".to_owned();
            assert_eq!(target(&path), Target::Request { prefix, id: Some(id), verb }, "{path}");
        }
    }

    #[test]
    fn a_workflow_has_one_part_more() {
        let Target::Request { prefix, .. } = target("/workflows/me/mine/requests/x") else { panic!("no request") };
        assert_eq!(prefix, "workflows/me/mine");
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in ["/", "/one", "/fal-ai/flux/requests", "/fal-ai/flux/requests/x/other"] {
            assert_eq!(target(path), Target::Nothing, "{path}");
        }
    }
}
