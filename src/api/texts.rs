//! How the document describes texts of one form: ids, amounts of money, addresses, words of queries.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::{
    ApiKeyId, AuditLogId, FileId, GenerationId, Money, Network, ProjectId, ServiceAccountId, SpendAlertId,
    WebhookDeliveryId,
};

/// US dollars with at most nine places, from zero.
const DOLLARS: &str = r"^([0-9]{1,9}|[0-8][0-9]{9})(\.[0-9]{1,9})?$";
/// An octet of an IPv4 address.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A group of an IPv6 address.
const GROUP: &str = "[0-9a-fA-F]{1,4}";

fn text(pattern: impl Into<String>) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

/// Describes each type as a text of a pattern.
macro_rules! texts {
    ($($name:ident: $pattern:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($pattern)
            }
        }

        impl ToSchema for $name {}
    )*};
}

texts! {
    GenerationId: Self::PATTERN;
    ProjectId: Self::PATTERN;
    ApiKeyId: Self::PATTERN;
    AuditLogId: Self::PATTERN;
    FileId: Self::PATTERN;
    ServiceAccountId: Self::PATTERN;
    SpendAlertId: Self::PATTERN;
    WebhookDeliveryId: Self::PATTERN;
    Money: DOLLARS;
    Network: network();
}

/// An address of either family, perhaps with the bits of a network.
fn network() -> String {
    let four = format!(r"{OCTET}(\.{OCTET}){{3}}");
    let mut six = vec![format!("({GROUP}:){{7}}{GROUP}"), format!("({GROUP}:){{1,7}}:"), format!(":(:{GROUP}){{1,7}}")];
    six.extend((1..=6).map(|after| format!("({GROUP}:){{1,{}}}(:{GROUP}){{{after}}}", 7 - after)));
    six.push("::".to_owned());
    let bits = "(/(3[0-2]|[12]?[0-9]))?";
    let more_bits = "(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
    format!("^({four}{bits}|({}){more_bits})$", six.join("|"))
}

/// Which end of a list comes first.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListOrder {
    /// Newest first.
    Desc,
    /// Oldest first.
    Asc,
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn a_network_is_described_as_it_is_read() {
        let pattern = Regex::new(&network()).unwrap();
        for text in [
            "10.0.0.0/8",
            "127.0.0.1",
            "0.0.0.0/0",
            "255.255.255.255/32",
            "fd00::/8",
            "::",
            "::/0",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1::3:4:5:6:7:8",
            "1:2:3:4:5:6::8",
            "2001:db8::5/128",
            "1::2:3/64",
            "10.0.0.0/09",
            "256.1.1.1",
            "1.2.3",
            "01.2.3.4",
            "10.0.0.0/33",
            "::/129",
            "1:2:3:4:5:6:7:8:9",
            "1::2::3",
            ":1",
            "1:",
            "host",
            "",
            "12345::",
        ] {
            // `/09` is read, and written by nobody.
            let is_read = text.parse::<Network>().is_ok() && !text.ends_with("/09");
            assert_eq!(pattern.is_match(text), is_read, "{text}");
        }
    }

    #[test]
    fn an_amount_is_described_as_it_is_read() {
        let pattern = Regex::new(DOLLARS).unwrap();
        for text in [
            "0",
            "0.025",
            "25.00",
            "8999999999.999999999",
            "007",
            "1.",
            ".5",
            "1e3",
            "",
            "+1",
            " 1",
            "10000000000",
            "0.0000000001",
        ] {
            assert_eq!(pattern.is_match(text), text.parse::<Money>().is_ok(), "{text}");
        }
    }

    #[test]
    fn an_id_is_described_as_it_is_read() {
        let simple = "019e1951c77871209c8216efcf40ec82";
        let hyphenated = "019e1951-c778-7120-9c82-16efcf40ec82";
        let (generation, project) =
            (Regex::new(GenerationId::PATTERN).unwrap(), Regex::new(ProjectId::PATTERN).unwrap());
        for uuid in [
            simple,
            hyphenated,
            &hyphenated.to_uppercase(),
            &format!("{{{hyphenated}}}"),
            &format!("urn:uuid:{hyphenated}"),
            "7",
            "",
        ] {
            assert_eq!(generation.is_match(uuid), uuid.parse::<GenerationId>().is_ok(), "{uuid}");
            let id = format!("proj_{uuid}");
            assert_eq!(project.is_match(&id), id.parse::<ProjectId>().is_ok(), "{id}");
        }
    }
}
