//! The multipart form of an edit: its files are images, its texts the model's parameters.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bodies::RateCheck;
use super::edit_inputs::{EditInputs, Fields};
use super::errors::entry;
use super::forms::{Part, PartReader};
use crate::catalogue::{Json, Kind, Model, Parameter, parse};
use crate::gateway::picture_type;
use crate::http::{Code, Problem};

/// A form's parts, in its order.
#[derive(Default)]
pub struct Form {
    texts: Vec<(String, String)>,
    /// Images and the others as URLs or data URIs.
    images: Vec<String>,
    mask: Option<String>,
    /// Files under other names.
    named: Vec<(String, String)>,
    /// What is wrong with the parts themselves.
    problems: Vec<Value>,
}

/// Stands for an image that cannot be read while all the rest of the form is checked.
const UNREADABLE: &str = "https://unreadable.invalid/";

impl Form {
    /// Reads the form that these parts are.
    pub fn from_parts(parts: Vec<Part>) -> Result<Self, Problem> {
        let mut form = Self::default();
        for part in parts {
            form.add(&part)?;
        }
        Ok(form)
    }

    fn add(&mut self, part: &Part) -> Result<(), Problem> {
        match plain_name(&part.name) {
            "" => return Err(Problem::new(Code::InvalidRequest, "a part of the form has no name")),
            // A browser sends a file input without a file as a file without a name; a file that has one was to be sent.
            _ if part.bytes.is_empty() && part.file_name.as_deref() == Some("") => {}
            "image" | "images" | "mask" if part.bytes.is_empty() && part.file_name.is_none() => {}
            "image" | "images" => {
                let image = self.image("image", part);
                self.images.push(image);
            }
            "mask" if self.mask.is_some() => self.problems.push(entry("mask", "given more than once")),
            "mask" => self.mask = Some(self.image("mask", part)),
            name if part.file_name.is_some() => {
                let file = self.image(name, part);
                self.named.push((name.to_owned(), file));
            }
            name => match String::from_utf8(part.bytes.to_vec()) {
                Ok(text) => self.texts.push((name.to_owned(), text)),
                Err(_) => self.problems.push(entry(name, "must be text in UTF-8")),
            },
        }
        Ok(())
    }

    /// The image of a part: a file, or a URL or data URI as text.
    fn image(&mut self, field: &str, part: &Part) -> String {
        let text = std::str::from_utf8(&part.bytes).ok().filter(|_| part.file_name.is_none());
        let link = |text: &&str| ["http://", "https://", "data:"].iter().any(|scheme| text.starts_with(scheme));
        if let Some(link) = text.map(str::trim).filter(link) {
            return link.to_owned();
        }
        data_uri(&part.bytes).unwrap_or_else(|fault| {
            self.problems.push(entry(field, fault));
            UNREADABLE.to_owned()
        })
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// The texts as a JSON body would have them, and the files.
    pub fn inputs<'a>(&'a self, model: Option<&'a Model>) -> (Fields<'a>, EditInputs<'a>) {
        let parameters = model.map(|model| model.parameters.as_slice()).unwrap_or_default();
        let value =
            |(name, text): &'a (String, String)| (Cow::Borrowed(name.as_str()), value_of(parameters, name, text));
        let borrowed = |text: &'a String| Cow::Borrowed(text.as_str());
        let inputs = EditInputs {
            images: self.images.iter().map(borrowed).collect(),
            mask: self.mask.as_ref().map(borrowed),
            named: self.named.iter().map(|(name, file)| (borrowed(name), borrowed(file))).collect(),
            problems: self.problems.clone(),
        };
        (self.texts.iter().map(value).collect(), inputs)
    }
}

/// Reads all parts of a form. Errors as soon as the part `model` has come if that model's rate is used up.
pub async fn read_parts(mut form: PartReader, rates: Option<RateCheck>) -> Result<Vec<Part>, Problem> {
    let mut parts = Vec::new();
    while let Some(part) = form.next().await? {
        if let Some(rates) = rates.as_ref().filter(|_| plain_name(&part.name) == "model")
            && let Ok(model) = std::str::from_utf8(&part.bytes)
        {
            rates.check_named(model).await?;
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The name of a part without what form libraries add for several of them: `image[]` and `image[0]` are `image`.
fn plain_name(name: &str) -> &str {
    let Some((plain, rest)) = name.split_once('[') else { return name };
    let is_index = rest.strip_suffix(']').is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()));
    if is_index { plain } else { name }
}

/// A form has only texts: numbers, switches and lists are read as JSON where the parameter is none of the textual kinds.
fn value_of<'a>(parameters: &[Parameter], name: &str, text: &'a str) -> Json<'a> {
    let parameter = parameters
        .iter()
        .find(|parameter| parameter.name.as_ref() == name || parameter.accepts.iter().any(|other| other == name));
    let reads_json = match parameter.map(|parameter| &parameter.kind) {
        Some(Kind::Text(_) | Kind::Choice(_) | Kind::AspectRatio(_) | Kind::Image) => false,
        Some(Kind::Size(_)) => text.trim_start().starts_with('{'),
        Some(_) => true,
        None => matches!(name, "stream" | "partial_images" | "sync_mode" | "fallbacks" | "width" | "height"),
    };
    let as_text = || Json::String(Cow::Borrowed(text));
    if reads_json { parse(text.as_bytes()).unwrap_or_else(|_| as_text()) } else { as_text() }
}

/// A file as a data URI, typed by its first bytes, whatever the form says.
fn data_uri(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.is_empty() {
        return Err("the file is empty");
    }
    let kind = picture_type(bytes).ok_or("the file is not a PNG, JPEG, WebP, GIF or AVIF image")?;
    Ok(format!("data:{kind};base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn every_way_to_name_several_parts_is_one_name() {
        for name in ["image", "image[]", "image[0]", "image[12]"] {
            assert_eq!(plain_name(name), "image", "{name}");
        }
        for name in ["image[", "image[a]", "image[0][1]", "images", "[]image"] {
            assert_ne!(plain_name(name), "image", "{name}");
        }
    }
}
