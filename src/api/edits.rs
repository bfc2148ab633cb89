//! `POST /v1/images/edits`: OpenAI's two forms, multipart and JSON, for models that take input images.
//!
//! Both become the wish that a JSON body for `/v1/images/generations` would be: the images stand in the model's image
//! parameter, files as data URIs. So the same checks, the same books and the same answers follow.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};
use serde_json::Value;
use tokio::runtime::Handle;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

use super::Services;
use super::access::{ProjectCaller, scope};
use super::answer::ImageAnswer;
use super::bodies::{LARGE_BODY, admit_large};
use super::edit_form::{Form, read_parts};
use super::edit_inputs::{EditInputs, Fields};
use super::edit_json::{Asker, read_edit};
use super::errors::invalid_field;
use super::forms::{Part, PartReader, expect_form};
use super::generations::project_of;
use super::images::{Asked, handling, make_images};
use super::input::expect_json;
use super::permission::permit;
use crate::accounts::Caller;
use crate::catalogue::{Handling, Json, Model, parse_request};
use crate::domain::ProjectId;
use crate::gateway::Accepted;
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
#[schema(as = ImageEditForm)]
#[expect(dead_code, reason = "describes the form in the document")]
pub struct EditForm {
    /// The model; it must take input images.
    #[schema(example = "flux/kontext-pro/image-to-image")]
    model: String,
    /// What to make of the image.
    #[schema(example = "Make it night")]
    prompt: String,
    /// The images, as PNG, JPEG, WebP, GIF or AVIF; a file for each, all under this name. `image[]`, `image[0]`, `images` and
    /// `images[]` mean the same.
    #[schema(schema_with = image_files)]
    image: Vec<Vec<u8>>,
    /// Where the image may be changed, for models that take a mask.
    #[schema(schema_with = image_file, required = false)]
    mask: Option<Vec<u8>>,
    /// How many images.
    #[schema(nullable = false, minimum = 1)]
    n: Option<u32>,
    /// `1024x1024`, or `auto`.
    #[schema(nullable = false, pattern = "^([1-9][0-9]{1,3}x[1-9][0-9]{1,3}|auto)$")]
    size: Option<String>,
    /// `url` or `b64_json`; without it each image has both.
    #[schema(value_type = Option<FormatText>, nullable = false)]
    response_format: Option<String>,
    /// For models that have it, such as `high`.
    #[schema(nullable = false)]
    quality: Option<String>,
    /// For models that have it: `transparent`, `opaque` or `auto`.
    #[schema(nullable = false)]
    background: Option<String>,
    /// For models that have it, such as `png`.
    #[schema(nullable = false)]
    output_format: Option<String>,
    /// For models that have it; the same seed and request make about the same image.
    #[schema(nullable = false, minimum = 0)]
    seed: Option<i64>,
    /// Who asks, in your own words.
    #[schema(nullable = false, max_length = 512, pattern = r"^[^\x00]*$")]
    user: Option<String>,
    /// Whether the answer is a stream of server-sent events.
    #[schema(nullable = false)]
    stream: Option<bool>,
    /// How many unfinished images a stream shows, where the model has them.
    #[schema(nullable = false, minimum = 0, maximum = 3)]
    partial_images: Option<u32>,
}

/// One file of a form.
fn image_file() -> Object {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    let file = ObjectBuilder::new().schema_type(Type::String).format(Some(format));
    file.content_media_type("application/octet-stream").build()
}

/// One or more files of a form.
fn image_files() -> Array {
    ArrayBuilder::new().items(image_file()).min_items(Some(1)).build()
}

/// An edit without files. Further fields are the model's parameters, as in a request for images.
#[derive(Debug, ToSchema)]
#[schema(as = ImageEditRequest)]
#[expect(dead_code, reason = "describes the body in the document")]
pub struct EditRequest {
    /// The model; it must take input images.
    #[schema(example = "flux/kontext-pro/image-to-image")]
    model: String,
    /// What to make of the image.
    #[schema(example = "Make it night")]
    prompt: String,
    /// The images. `image` and `image_url` mean the same, and take a single one without the list.
    #[schema(min_items = 1)]
    images: Vec<EditImage>,
    /// Where the image may be changed, for models that take a mask.
    #[schema(nullable = false)]
    mask: Option<EditImage>,
    /// How many images.
    #[schema(nullable = false, minimum = 1)]
    n: Option<u32>,
    /// `1024x1024`, or `auto`.
    #[schema(nullable = false, pattern = "^([1-9][0-9]{1,3}x[1-9][0-9]{1,3}|auto)$")]
    size: Option<String>,
    /// `url` or `b64_json`.
    #[schema(value_type = Option<FormatText>, nullable = false)]
    response_format: Option<String>,
    /// For models that have it, such as `high`.
    #[schema(nullable = false)]
    quality: Option<String>,
    /// For models that have it: `transparent`, `opaque` or `auto`.
    #[schema(nullable = false)]
    background: Option<String>,
    /// For models that have it, such as `png`.
    #[schema(nullable = false)]
    output_format: Option<String>,
    /// For models that have it; the same seed and request make about the same image.
    #[schema(nullable = false, minimum = 0)]
    seed: Option<i64>,
    /// Who asks, in your own words.
    #[schema(nullable = false, max_length = 512, pattern = r"^[^\x00]*$")]
    user: Option<String>,
    /// Whether the answer is a stream of server-sent events.
    #[schema(nullable = false)]
    stream: Option<bool>,
    /// How many unfinished images a stream shows, where the model has them.
    #[schema(nullable = false, minimum = 0, maximum = 3)]
    partial_images: Option<u32>,
}

/// An image by its address or by the id of an uploaded file: one of the two.
#[derive(Debug, ToSchema)]
#[schema(as = ImageReference)]
#[expect(dead_code, reason = "describes the body in the document")]
pub struct EditImage {
    /// An `http(s)` URL or a data URI.
    #[schema(nullable = false, example = "https://v3b.fal.media/files/b/0a84799e/input.png")]
    image_url: Option<String>,
    /// A file of the project (`POST /v1/files`); requires the scope `files`.
    #[schema(nullable = false, example = "file-019e1951c77871209c8216efcf40ec82")]
    file_id: Option<String>,
}

/// Edit images
///
/// OpenAI's two forms. Multipart: one or several files as `image`, a `mask` for models that take one. JSON: `images` and
/// `mask` as addresses or ids of uploaded files. Everything else is as for making images. A file under another name is
/// refused, and so is an edit without an image.
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    operation_id = "createImageEdit",
    tag = "images",
    request_body(content(
        (EditForm = "multipart/form-data", encoding(("image" = (content_type = "image/png, image/jpeg, image/webp, image/gif")), ("mask" = (content_type = "image/png, image/jpeg, image/webp, image/gif")))),
        (EditRequest = "application/json"),
    )),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Same key and request: one image, one charge, the same answer. Kept 24 hours.", pattern = "^[!-~]([ -~]{0,253}[!-~])?$"),
        ("x-imagegate-strict" = Option<bool>, Header, description = "`true`: fields that the model does not have are errors."),
        ("x-imagegate-adapt" = Option<String>, Header, description = "What may be changed so that the request fits the model: any of `size`, `numbers`, `seed`, `output_format`, `quality` in a list with commas, or `all`, or `none`. Without it the setting of the key or the project counts, and without that nothing is changed.", pattern = "^(all|none|(size|numbers|seed|output_format|quality)(, ?(size|numbers|seed|output_format|quality))*)$"),
    ),
    responses(
        (status = 201, description = "The images. The status is 200 where the operator has set it so.", body = ImageAnswer),
        (status = 200, description = "With `stream: true`: server-sent events whose types begin with `image_edit.`.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "The request does not fit the model, or its content is refused; `error.data` lists every problem.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "No credit, a limit reached, or an admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such model.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither a multipart form nor JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used with another request.", body = ProblemBody, content_type = "application/problem+json"),
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
    let is_json = request.headers().contains_key(CONTENT_TYPE) && expect_json(&request).is_ok();
    if !is_json {
        expect_form(&request, "or `application/json` with `images`")?;
    }
    let rates = admit_large(&request, &caller).await?;
    let body = if is_json {
        let mut payload = payload.into_inner();
        if let Some(rates) = rates {
            payload = rates.check_json(payload).await?;
        }
        let body = web::Bytes::from_request(&request, &mut payload).await;
        EditBody::Json(body.map_err(|error| Problem::of(&error))?)
    } else {
        EditBody::Form(read_parts(PartReader::new(&request, payload), rates).await?)
    };
    let (caller, context) = (caller.into_inner(), context.into_inner());
    let project = project_of(&caller)?;
    // Clients of OpenAI's form, which is how its SDKs send every edit, read `b64_json` alone.
    let embeds = matches!(body, EditBody::Form(_));
    let handling = Handling { embeds, ..handling(&request, &caller, services.accounts.aliases(Some(project)))? };
    let is_large = body.length() >= LARGE_BODY;
    let edit = Edit { caller: caller.clone(), project, handling, services: services.clone(), is_large };
    let accepted = edit.accept(body).await?;
    make_images(Asked { request, services, caller, context, events: "image_edit" }, accepted).await
}

/// An edit as it came.
enum EditBody {
    Json(web::Bytes),
    Form(Vec<Part>),
}

impl EditBody {
    /// In bytes.
    fn length(&self) -> usize {
        match self {
            Self::Json(body) => body.len(),
            Self::Form(parts) => parts.iter().map(|part| part.bytes.len()).sum(),
        }
    }
}

/// Who asks for an edit, and how it is read.
struct Edit {
    caller: Caller,
    project: ProjectId,
    handling: Handling,
    services: web::Data<Services>,
    /// Whether the body is large, so that no thread reads it that answers requests.
    is_large: bool,
}

impl Edit {
    async fn accept(self, body: EditBody) -> Result<Accepted, Problem> {
        if !self.is_large {
            return self.read(body).await;
        }
        let (gateway, project) = (self.services.gateway.clone(), self.project);
        // It waits only for the database, where the body names uploaded files.
        gateway.read_large(project, move || Handle::current().block_on(self.read(body))).await
    }

    async fn read(&self, body: EditBody) -> Result<Accepted, Problem> {
        let catalogue = self.services.gateway.catalogue();
        let named = |id: &str| catalogue.named(&self.handling.aliases, id).map(AsRef::as_ref);
        match body {
            EditBody::Json(body) => {
                let json = parse_request(&body)?;
                let object = match json.as_object() {
                    Some(object) if !json.repeats_keys() => object,
                    // The catalogue says what is wrong.
                    _ => return self.check(&json).await,
                };
                let model = object.get("model").and_then(Json::as_str).and_then(named);
                let asker = Asker { caller: &self.caller, project: self.project, services: &self.services };
                let (fields, inputs) = read_edit(object, model, &asker).await?;
                self.accept_inputs(model, fields, inputs).await
            }
            EditBody::Form(parts) => {
                let form = Form::from_parts(parts)?;
                let model = form.text("model").and_then(named);
                let (fields, inputs) = form.inputs(model);
                self.accept_inputs(model, fields, inputs).await
            }
        }
    }

    /// Checks an edit like any request for images. Without a known model the catalogue says what is wrong.
    async fn accept_inputs<'a>(
        &self,
        model: Option<&'a Model>,
        mut fields: Fields<'a>,
        inputs: EditInputs<'a>,
    ) -> Result<Accepted, Problem> {
        let problems = match model {
            Some(model) => inputs.add_to(model, &mut fields),
            None => inputs.problems,
        };
        let accepted = self.check(&Json::Object(fields.into_iter().collect())).await;
        if !problems.is_empty() {
            return Err(with_the_rest(problems, accepted.err()));
        }
        let accepted = accepted?;
        // Made from the text alone it would be charged, and be no edit.
        if accepted.order.input_images().next().is_none() {
            let message = "an edit needs an input image; to make images from a text, use /v1/images/generations";
            return Err(invalid_field("image", message));
        }
        Ok(accepted)
    }

    /// Checks the request against the catalogue and the caller's permissions, and prices it.
    async fn check(&self, request: &Json<'_>) -> Result<Accepted, Problem> {
        let gateway = &self.services.gateway;
        let mut accepted = if self.is_large {
            gateway.accept_here(request, &self.handling)?
        } else {
            gateway.accept(self.project, request, &self.handling).await?
        };
        permit(&self.caller, &mut accepted)?;
        Ok(accepted)
    }
}

/// What is wrong with an edit's images, with what else the catalogue finds wrong. A refusal for another reason comes first.
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
