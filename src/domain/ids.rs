//! Ids as types of their own, so that a key's id is never taken for a project's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id of this kind")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// From the `UUIDv7` that an [`IdSource`](super::IdSource) made or a database holds.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// As the database holds it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $prefix.is_empty() {
                    write!(f, "{}", self.0.hyphenated())
                } else {
                    write!(f, concat!($prefix, "{}"), self.0.simple())
                }
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .and_then(|rest| Uuid::parse_str(rest).ok())
                    .map(Self)
                    .ok_or_else(|| IdError(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One generation: a hyphenated `UUIDv7` without prefix, since fal's clients read it as a request id.
    GenerationId,
    ""
);
id!(
    /// A project: `proj_` and 32 hex digits.
    ProjectId,
    "proj_"
);
id!(
    /// A key, admin or project: `key_` and 32 hex digits. Not the secret.
    ApiKeyId,
    "key_"
);
id!(
    /// A service account of a project: `svc_acct_` and 32 hex digits.
    ServiceAccountId,
    "svc_acct_"
);
id!(
    /// One entry of the audit log: `audit_log_` and 32 hex digits.
    AuditLogId,
    "audit_log_"
);
id!(
    /// A spend alert: `alert_` and 32 hex digits.
    SpendAlertId,
    "alert_"
);
id!(
    /// A call to a customer about a generation that has ended: `msg_` and 32 hex digits, as Standard Webhooks' examples.
    WebhookDeliveryId,
    "msg_"
);
id!(
    /// An uploaded file: `file-` and 32 hex digits, as OpenAI's.
    FileId,
    "file-"
);
id!(
    /// One HTTP request, as `x-request-id` names it: `req_` and 32 hex digits.
    RequestId,
    "req_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_not_as_another_kind() {
        let uuid = Uuid::from_u128(0x019e_1951_c778_7120_9c82_16ef_cf40_ec82);
        let project = ProjectId::from_uuid(uuid);
        assert_eq!(project.to_string(), "proj_019e1951c77871209c8216efcf40ec82");
        assert_eq!(project.to_string().parse(), Ok(project));
        assert!(project.to_string().parse::<ApiKeyId>().is_err());
        let generation = GenerationId::from_uuid(uuid);
        assert_eq!(generation.to_string(), "019e1951-c778-7120-9c82-16efcf40ec82");
    }
}
