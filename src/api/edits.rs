//! `POST /v1/images/edits`: OpenAI's two forms, multipart and JSON, for models that take input images.
//!
//! Both become the wish that a JSON body for `/v1/images/generations` would be: the images stand in the model's image
//! parameter, files as data URIs. So the same checks, the same books and the same answers follow.

use actix_multipart::Multipart;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

use super::Services;
use super::access::{ProjectCaller, scope};
use super::answer::ImageAnswer;
use super::bodies::{admit, is_large};
use super::edit_form::Form;
use super::edit_inputs::{EditInputs, Fields};
use super::edit_json::{Asker, read_edit};
use super::errors::invalid_field;
use super::forms::expect_form;
use super::generations::project_of;
use super::images::{Asked, accept, make_images};
use super::input::expect_json;
use crate::accounts::Caller;
use crate::catalogue::{Json, Model, parse_request};
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
    if is_large(&request) {
        admit(&request, &caller).await?;
    }
    let accepted = if is_json {
        let body = web::Bytes::from_request(&request, &mut payload.into_inner()).await;
        let body = body.map_err(|fault| Problem::of(&fault))?;
        accept_json(&request, &caller, &body, &services).await?
    } else {
        let form = Form::read(Multipart::new(request.headers(), payload), services.http.body_limit).await?;
        let catalogue = services.gateway.catalogue();
        let aliases = services.accounts.aliases(Some(project_of(&caller)?));
        let model = form.text("model").and_then(|id| catalogue.named(&aliases, id)).map(AsRef::as_ref);
        let (fields, inputs) = form.inputs(model);
        // Clients of OpenAI's form, which is how its SDKs send every edit, read `b64_json` alone.
        accept_edit(&request, &caller, model, Edit { fields, inputs, embeds: true }, &services).await?
    };
    let (caller, context) = (caller.into_inner(), context.into_inner());
    make_images(Asked { request, services, caller, context, events: "image_edit" }, accepted).await
}

async fn accept_json(
    request: &HttpRequest,
    caller: &Caller,
    body: &[u8],
    services: &Services,
) -> Result<Accepted, Problem> {
    let wish = parse_request(body)?;
    let object = match wish.as_object() {
        Some(object) if !wish.repeats_keys() => object,
        // The catalogue says what is wrong.
        _ => return accept(request, caller, &wish, false, services).await,
    };
    let catalogue = services.gateway.catalogue();
    let aliases = services.accounts.aliases(Some(project_of(caller)?));
    let model = object.get("model").and_then(Json::as_str);
    let model = model.and_then(|id| catalogue.named(&aliases, id)).map(AsRef::as_ref);
    let asker = Asker { caller, project: project_of(caller)?, services };
    let (fields, inputs) = read_edit(object, model, &asker).await?;
    accept_edit(request, caller, model, Edit { fields, inputs, embeds: false }, services).await
}

/// An edit as it was read.
struct Edit<'a> {
    fields: Fields<'a>,
    inputs: EditInputs<'a>,
    /// Whether the images come embedded as well where it does not say how they are to come.
    embeds: bool,
}

/// Checks an edit like any request for images. Without a known model the catalogue says what is wrong.
async fn accept_edit<'a>(
    request: &HttpRequest,
    caller: &Caller,
    model: Option<&'a Model>,
    edit: Edit<'a>,
    services: &Services,
) -> Result<Accepted, Problem> {
    let Edit { mut fields, inputs, embeds } = edit;
    let problems = match model {
        Some(model) => inputs.add_to(model, &mut fields),
        None => inputs.problems,
    };
    let wish = Json::Object(fields.into_iter().collect());
    let accepted = accept(request, caller, &wish, embeds, services).await;
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
