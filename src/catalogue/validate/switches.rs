//! The fields that are the gateway's own, and other clients' habits with them.

use super::super::json::Json;
use super::super::model::{Field, Model};
use super::super::problem::Code;
use super::super::shelf::Catalogue;
use super::super::switches::{ResponseFormat, Switch, Switches};
use super::adapt;
use super::findings::{Findings, shorten};
use super::scalars::{boolean, is_web_url, plain_text, whole_between};
use crate::domain::Aliases;

/// Longest `user`, in characters.
const LONGEST_USER: usize = 512;
/// Most `fallbacks`.
const MOST_FALLBACKS: usize = 8;
/// Most `partial_images`, as at `OpenAI`.
const MOST_PARTIAL_IMAGES: i128 = 3;

/// Fields that other clients use for one of our switches, or of ours that a model's parameter shares its name with.
pub(super) fn redirect(key: &str, json: &Json<'_>) -> Option<Field> {
    match (key, json) {
        // LiteLLM's way to say it.
        ("output_format", Json::String(format)) if format == "b64_json" => Some(Field::Switch(Switch::ResponseFormat)),
        // `OpenAI`'s newer name for the user.
        ("safety_identifier", _) => Some(Field::Switch(Switch::User)),
        // `OpenAI` has a `background` that is a colour.
        ("background", Json::Bool(_)) => Some(Field::Switch(Switch::Background)),
        _ => None,
    }
}

/// Whether this field of a request is asked of the gateway itself, at this model.
pub(super) fn is_switch(model: &Model, key: &str, json: &Json<'_>) -> bool {
    let field = redirect(key, json).or_else(|| model.index.fields.get(key).copied());
    matches!(field, Some(Field::Switch(switch)) if !is_colour(switch, json))
}

/// `OpenAI`'s `background` is a colour; where a model has none, it counts for nothing.
pub(super) fn is_colour(switch: Switch, json: &Json<'_>) -> bool {
    switch == Switch::Background && matches!(json.as_str(), Some("auto" | "opaque" | "transparent"))
}

/// Reads the switches, in the request's order.
pub(super) fn read<'j>(
    catalogue: Option<&Catalogue>,
    aliases: &Aliases,
    usual: Switches,
    given: &[(Switch, &'j str, &'j Json<'j>)],
    findings: &mut Findings<'j>,
) -> Switches {
    let mut switches = usual;
    let mut format_from: Option<&'j str> = None;
    for &(switch, key, json) in given {
        findings.within(key, |findings| match switch {
            Switch::ResponseFormat => {
                let Some(format) = response_format(json, findings) else { return };
                if let Some(first) = format_from.filter(|_| format != switches.response_format) {
                    findings.note(Code::Custom, format!("`{key}` and `{first}` differ; give one of them"));
                }
                (switches.response_format, format_from) = (format, Some(key));
            }
            Switch::User => {
                let user = user(json, findings);
                if key == "user" || switches.user.is_none() {
                    switches.user = user;
                }
            }
            Switch::Stream => switches.stream = boolean(json, findings).unwrap_or_default(),
            Switch::PartialImages => {
                let count = {
                    let read = adapt::number_in_text(json, findings);
                    whole_between(0, MOST_PARTIAL_IMAGES, read.as_ref().unwrap_or(json), findings)
                };
                switches.partial_images = count.and_then(|count| u32::try_from(count).ok());
            }
            Switch::Background => switches.background = boolean(json, findings).unwrap_or_default(),
            Switch::WebhookUrl => switches.webhook_url = webhook_url(json, findings),
            Switch::Fallbacks => switches.fallbacks = Some(fallbacks(catalogue, aliases, json, findings)),
            Switch::SyncMode => switches.sync_mode = boolean(json, findings).unwrap_or_default(),
        });
    }
    switches
}

fn response_format(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<ResponseFormat> {
    match plain_text(json, findings)? {
        "url" => Some(ResponseFormat::Url),
        "b64_json" => Some(ResponseFormat::B64Json),
        other => {
            findings.not_an_option(other, ["url", "b64_json"].into_iter(), "");
            None
        }
    }
}

fn user(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let user = plain_text(json, findings)?;
    if user.len() > LONGEST_USER && user.chars().count() > LONGEST_USER {
        findings.too_big("string", LONGEST_USER, None);
        return None;
    }
    Some(user.to_owned())
}

fn webhook_url(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let url = plain_text(json, findings)?;
    if is_web_url(url) {
        return Some(url.to_owned());
    }
    findings.note(Code::InvalidString, format!("{} must be an `http(s)` URL", findings.here()));
    None
}

/// Each must be a model that is offered, so that a mistake shows now and not when the fallback is needed.
/// An alias stands for its model, if it is only another name: its values belong to that model alone.
fn fallbacks(
    catalogue: Option<&Catalogue>,
    aliases: &Aliases,
    json: &Json<'_>,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let Json::Array(array) = json else {
        findings.wrong_type("array", json);
        return Vec::new();
    };
    if array.items().len() > MOST_FALLBACKS {
        findings.too_big("array", MOST_FALLBACKS, None);
        return Vec::new();
    }
    let mut models = Vec::with_capacity(array.items().len());
    for (index, item) in array.items().iter().enumerate() {
        findings.within_item(index, |findings| {
            let Some(id) = plain_text(item, findings) else { return };
            if let Some(alias) = aliases.get(id).filter(|alias| !alias.is_plain()) {
                let (here, target) = (findings.here(), &alias.target);
                let message = format!("{here} is an alias with values of its own; name its model `{target}` instead");
                findings.note(Code::Custom, message);
                return;
            }
            let known = catalogue.and_then(|catalogue| catalogue.named(aliases, id));
            if let Some(model) = known.filter(|model| model.is_offered()) {
                models.push(model.id.clone());
                return;
            }
            let near = catalogue.and_then(|catalogue| catalogue.nearest(id));
            let guess = near.as_deref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let message = format!("{} must be a model on offer, not `{}`{guess}", findings.here(), shorten(id));
            findings.note_with(Code::Custom, message, |problem| problem.nearest = near.map(Into::into));
        });
    }
    models
}
