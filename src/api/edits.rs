//! `POST /v1/images/edits`: OpenAI's multipart form, for models that take input images.
//!
//! The form becomes the same wish as a JSON body: its files are data URIs in the model's image parameter, its texts are
//! read as the kind that the parameter wants. So the same checks, the same books and the same answers follow.

use std::borrow::Cow;

use actix_multipart::Multipart;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use utoipa::ToSchema;

use super::Services;
use super::access::{ProjectCaller, scope};
use super::answer::ImageAnswer;
use super::bodies::{admit, is_large};
use super::errors::entry;
use super::forms::{expect_form, read_parts};
use super::images::{Asked, accept, make_images, project_of};
use crate::catalogue::{Json, Kind, Model, Parameter, parse};
use crate::gateway::picture_type;
use crate::http::{Code, Problem, ProblemBody, RequestContext};

/// How the images come.
#[derive(Debug, ToSchema)]
#[schema(as = ImageResponseFormat)]
#[expect(dead_code, reason = "describes the words of `response_format` in the document")]
pub enum FormatText {
    /// As links.
    #[serde(rename = "url")]
    Url,
    /// Embedded in base64.
    #[serde(rename = "b64_json")]
    B64Json,
}

/// A form with one or several images. Further fields are the model's parameters, as in a JSON request.
#[derive(Debug, ToSchema)]
#[schema(as = ImageEditRequest)]
#[expect(dead_code, reason = "describes the form in the document")]
pub struct EditForm {
    /// The model; it must take input images.
    #[schema(example = "flux/kontext-pro/image-to-image")]
    model: String,
    /// What to make of the image.
    #[schema(example = "Make it night")]
    prompt: String,
    /// The image, as PNG, JPEG, WebP, GIF or AVIF; several under the name `image[]`.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    image: Vec<u8>,
    /// Where the image may be changed, for models that take a mask.
    #[schema(value_type = Option<String>, format = Binary, nullable = false, content_media_type = "application/octet-stream")]
    mask: Option<Vec<u8>>,
    /// How many images.
    #[schema(nullable = false, minimum = 1)]
    n: Option<u32>,
    /// `1024x1024`, or `auto`.
    #[schema(nullable = false, pattern = "^([1-9][0-9]{1,3}x[1-9][0-9]{1,3}|auto)$")]
    size: Option<String>,
    /// `url` or `b64_json`.
    #[schema(value_type = Option<FormatText>, nullable = false)]
    response_format: Option<String>,
    /// Who asks, in your own words.
    #[schema(nullable = false, max_length = 512)]
    user: Option<String>,
}

/// Edit images
///
/// OpenAI's multipart form: one image as `image`, several as `image[]`, a `mask` for models that take one. Everything
/// else is as for making images.
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    operation_id = "createImageEdit",
    tag = "images",
    request_body(content = EditForm, content_type = "multipart/form-data", encoding(("image" = (content_type = "image/png, image/jpeg, image/webp, image/gif")), ("mask" = (content_type = "image/png, image/jpeg, image/webp, image/gif")))),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Same key and form: one image, one charge, the same answer. Kept 24 hours.", pattern = "^[!-~]([ -~]{0,253}[!-~])?$"),
        ("x-imagegate-strict" = Option<bool>, Header, description = "`true`: fields that the model does not have are errors."),
        ("x-imagegate-adapt" = Option<String>, Header, description = "What may be changed so that the request fits the model: any of `size`, `numbers`, `seed`, `output_format`, `quality` in a list with commas, or `all`, or `none`. Without it the setting of the key or the project counts, and without that nothing is changed.", pattern = "^(all|none|(size|numbers|seed|output_format|quality)(, ?(size|numbers|seed|output_format|quality))*)$"),
    ),
    responses(
        (status = 201, description = "The images. The status is 200 where the operator has set it so.", body = ImageAnswer),
        (status = 200, description = "With `stream: true`: server-sent events whose types begin with `image_edit.`.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "The form does not fit the model, or its content is refused; `error.data` lists every problem.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "No credit, a limit reached, or an admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such model.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The form is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is no multipart form.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used with another form.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests; see `Retry-After`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "A fault of the gateway.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "The provider failed; nothing was charged.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The request cannot be taken now; see `Retry-After`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Not ready by its deadline; the answer names the generation.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create_image_edit(
    caller: ProjectCaller<scope::Generate>,
    request: HttpRequest,
    context: web::ReqData<RequestContext>,
    payload: web::Payload,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    expect_form(&request, "with image links, send JSON to /v1/images/generations")?;
    if is_large(&request) {
        admit(&request, &caller).await?;
    }
    let form = Form::read(Multipart::new(request.headers(), payload), services.http.body_limit).await?;
    let catalogue = services.gateway.catalogue();
    let aliases = services.accounts.aliases(Some(project_of(&caller)?));
    let model = form.text("model").and_then(|id| catalogue.named(&aliases, id));
    let (wish, problems) = form.wish(model.map(AsRef::as_ref));
    let accepted = accept(&request, &caller, &wish, &services).await;
    let accepted = if problems.is_empty() { accepted? } else { return Err(with_the_rest(problems, accepted.err())) };
    drop(wish);
    drop(form);
    let (caller, context) = (caller.into_inner(), context.into_inner());
    make_images(Asked { request, services, caller, context, events: "image_edit" }, accepted).await
}

/// A form's parts, in its order.
#[derive(Default)]
struct Form {
    texts: Vec<(String, String)>,
    /// As data URIs.
    images: Vec<String>,
    mask: Option<String>,
    /// What is wrong with the parts themselves.
    problems: Vec<Value>,
}

/// Stands for an image that cannot be read while all the rest of the form is checked.
const UNREADABLE: &str = "https://unreadable.invalid/";

impl Form {
    async fn read(parts: Multipart, limit: usize) -> Result<Self, Problem> {
        let mut form = Self::default();
        read_parts(parts, limit, |part| form.add(&part.name, &part.bytes)).await?;
        Ok(form)
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        match name {
            "image" | "image[]" => {
                let image = self.image("image", bytes);
                self.images.push(image);
            }
            "mask" if self.mask.is_some() => self.problems.push(entry("mask", "given more than once")),
            "mask" => self.mask = Some(self.image("mask", bytes)),
            "" => return Err(Problem::new(Code::InvalidRequest, "a part of the form has no name")),
            _ => match String::from_utf8(bytes.to_vec()) {
                Ok(text) => self.texts.push((name.trim_end_matches("[]").to_owned(), text)),
                Err(_) => self.problems.push(entry(name, "must be text in UTF-8")),
            },
        }
        Ok(())
    }

    fn image(&mut self, field: &str, bytes: &[u8]) -> String {
        data_uri(bytes).unwrap_or_else(|fault| {
            self.problems.push(entry(field, fault));
            UNREADABLE.to_owned()
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// The form as the wish that a JSON body would be, and what is wrong with its files. Without a known model the
    /// catalogue says what is wrong.
    fn wish<'a>(&'a self, model: Option<&'a Model>) -> (Json<'a>, Vec<Value>) {
        let parameters = model.map(|model| model.parameters.as_slice()).unwrap_or_default();
        let mut problems = self.problems.clone();
        let mut fields: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        for (name, text) in &self.texts {
            fields.push((Cow::Borrowed(name.as_str()), value_of(parameters, name, text)));
        }
        if model.is_some() {
            self.add_images(parameters, &mut fields, &mut problems);
            if let Some(mask) = &self.mask {
                let takes = |parameter: &&Parameter| parameter.name.contains("mask") && takes_images(&parameter.kind);
                match parameters.iter().find(takes) {
                    Some(parameter) => {
                        fields.push((Cow::Borrowed(parameter.name.as_ref()), Json::String(Cow::Borrowed(mask))));
                    }
                    None => problems.push(entry("mask", "this model takes no mask")),
                }
            }
        }
        (Json::Object(fields.into_iter().collect()), problems)
    }

    /// The images under the name of the model's first image parameter.
    fn add_images<'a>(
        &'a self,
        parameters: &'a [Parameter],
        fields: &mut Vec<(Cow<'a, str>, Json<'a>)>,
        problems: &mut Vec<Value>,
    ) {
        let Some(first) = self.images.first() else { return };
        let takes = |parameter: &&Parameter| !parameter.name.contains("mask") && takes_images(&parameter.kind);
        let Some(parameter) = parameters.iter().find(takes) else {
            problems.push(entry("image", "this model takes no input images"));
            return;
        };
        let value = if matches!(parameter.kind, Kind::Image) {
            if self.images.len() > 1 {
                problems.push(entry("image", "this model takes one input image"));
            }
            Json::String(Cow::Borrowed(first.as_str()))
        } else {
            Json::Array(self.images.iter().map(|image| Json::String(Cow::Borrowed(image.as_str()))).collect())
        };
        fields.push((Cow::Borrowed(parameter.name.as_ref()), value));
    }
}

/// What is wrong with a form's files, with what else the catalogue finds wrong. A refusal for another reason comes first.
fn with_the_rest(mut entries: Vec<Value>, rest: Option<Problem>) -> Problem {
    match rest {
        Some(problem) if problem.code() != Code::InvalidParameters => return problem,
        Some(problem) => entries.extend(problem.error()["data"].as_array().into_iter().flatten().cloned()),
        None => {}
    }
    let first = &entries[0];
    let (param, said) = (first["path"][0].as_str().unwrap_or_default().to_owned(), &first["message"]);
    let said = said.as_str().unwrap_or_default();
    let message = match entries.len() {
        1 => format!("Invalid payload provided: `{param}`: {said}"),
        count => format!("Invalid payload provided: {count} problems; the first: `{param}`: {said}"),
    };
    Problem::new(Code::InvalidParameters, message).param(param).data(Value::Array(entries))
}

fn takes_images(kind: &Kind) -> bool {
    match kind {
        Kind::Image => true,
        Kind::List(list) => matches!(*list.items, Kind::Image),
        _ => false,
    }
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
