//! The playground: a form made from the model's file, its price before anything is spent, the picture, and the same
//! request as code.

use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde_json::{Map, Number, Value};

use super::form::{Form, encode};
use super::generations::pictures;
use super::inside::Visit;
use super::models::limits;
use super::page::{self, empty, items, state, text, usd};
use super::session::redirect;
use super::snippets::snippets;
use crate::domain::ProjectId;
use crate::http::{Code, Problem};

/// Fields of the form that are not the model's. `:` keeps them apart from its parameters.
const MODEL: &str = ":model";
const PROJECT: &str = ":project";

/// `GET /console/playground`.
pub async fn show(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let form = Form::read(request.query_string().as_bytes());
    let models = visit.get("/v1/models").await?;
    let projects = visit.get("/v1/organization/projects?limit=100").await?;
    let first = items(&models).first().map_or("", |model| text(&model["id"]));
    let id = form.given("model").unwrap_or(first);
    let content = if items(&projects).is_empty() {
        html! {
            h1 { "Playground" }
            (empty("There is no project that could pay.", &html! { a href="/console/projects" { "Make a project" } }))
        }
    } else {
        let model = visit.get(&format!("/v1/models/{}", path_of(id))).await?;
        whole_page(&visit, &models, &projects, &model)
    };
    Ok(page::show("Playground", "/console/playground", &content))
}

/// A model's id in a path: its slashes stay.
fn path_of(id: &str) -> String {
    id.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn whole_page(visit: &Visit, models: &Value, projects: &Value, model: &Value) -> Markup {
    let id = text(&model["id"]);
    html! {
        h1 { "Playground" }
        form .filters method="get" action="/console/playground" {
            div {
                label for="model" { "Model" }
                select id="model" name="model" data-submit {
                    @for other in items(models) {
                        option value=(text(&other["id"])) selected[other["id"] == model["id"]] { (text(&other["id"])) }
                    }
                }
            }
            div { button type="submit" { "Take this model" } }
        }
        p .hint { (text(&model["info"]["description"])) }
        div .playground {
            form #playground method="post" action="/console/playground/run" {
                input type="hidden" name=(MODEL) value=(id);
                div .field {
                    label for="project" { "Project that pays" }
                    select id="project" name=(PROJECT) {
                        @for project in items(projects) { option value=(text(&project["id"])) { (text(&project["name"])) } }
                    }
                }
                @for (name, rule) in parameters(visit, model) { (field(name, rule, &model["parameters"])) }
                div #quote role="status" aria-live="polite" { p .hint { "Fill in the form to see the price." } }
                div .deeds {
                    button type="submit" { "Make the image" }
                    " " button .quiet type="submit" formaction="/console/playground/quote" data-quote { "Only show the price" }
                }
            }
            section #result aria-live="polite" aria-label="Result" {}
        }
    }
}

/// The model's parameters under their own names, without the other words that are taken for them.
fn parameters<'m>(visit: &Visit, model: &'m Value) -> Vec<(&'m str, &'m Value)> {
    let catalogue = visit.services().gateway.catalogue();
    let Some(known) = catalogue.model(text(&model["id"])) else { return Vec::new() };
    let schema = &model["parameters"]["properties"];
    let named = known.parameters.iter().filter_map(|parameter| schema.as_object()?.get_key_value(&*parameter.name));
    named.map(|(name, rule)| (name.as_str(), rule)).collect()
}

/// Whether a rule takes values of this JSON type.
fn takes(rule: &Value, kind: &str) -> bool {
    match &rule["type"] {
        Value::String(word) => word == kind,
        Value::Array(words) => words.iter().any(|word| word == kind),
        _ => false,
    }
}

fn field(name: &str, rule: &Value, schema: &Value) -> Markup {
    let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
    let (id, help) = (format!("p-{name}"), format!("h-{name}"));
    html! {
        div .field {
            label for=(id) { (name) @if required { span .hint { " (required)" } } }
            (input(name, &id, &help, rule, required))
            p .hint id=(help) { (text_or_nothing(&rule["description"])) " " (limits(rule)) }
        }
    }
}

fn text_or_nothing(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn input(name: &str, id: &str, help: &str, rule: &Value, required: bool) -> Markup {
    let default = &rule["default"];
    let placeholder = default
        .as_str()
        .map_or_else(|| if default.is_null() { String::new() } else { default.to_string() }, str::to_owned);
    let presets: Vec<&str> = rule["anyOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variant| variant["enum"].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    html! {
        @if let Some(words) = rule["enum"].as_array() {
            select id=(id) name=(name) aria-describedby=(help) {
                @if !required { option value="" { "default" @if !placeholder.is_empty() { " (" (placeholder) ")" } } }
                @for word in words.iter().filter_map(Value::as_str) { option value=(word) { (word) } }
            }
        } @else if takes(rule, "boolean") {
            select id=(id) name=(name) aria-describedby=(help) {
                option value="" { "default" @if !placeholder.is_empty() { " (" (placeholder) ")" } }
                option value="true" { "yes" } option value="false" { "no" }
            }
        } @else if takes(rule, "integer") || takes(rule, "number") {
            input id=(id) name=(name) type="number" aria-describedby=(help) required[required] placeholder=(placeholder)
                min=[number_of(&rule["minimum"])] max=[number_of(&rule["maximum"])]
                step=(number_of(&rule["multipleOf"]).unwrap_or_else(|| if takes(rule, "integer") { "1" } else { "any" }.to_owned()));
        } @else if !presets.is_empty() {
            input id=(id) name=(name) list=(format!("l-{name}")) aria-describedby=(help) required[required] placeholder=(placeholder) autocomplete="off";
            datalist id=(format!("l-{name}")) { @for preset in presets { option value=(preset) {} } }
        } @else if takes(rule, "array") || takes(rule, "object") || rule["anyOf"].is_array() {
            textarea id=(id) name=(name) rows="3" aria-describedby=(help) required[required] placeholder="as JSON" spellcheck="false" {}
        } @else {
            textarea id=(id) name=(name) rows=(if required { 4 } else { 2 }) aria-describedby=(help) required[required]
                maxlength=[number_of(&rule["maxLength"])] placeholder=(placeholder) {}
        }
    }
}

fn number_of(value: &Value) -> Option<String> {
    value.is_number().then(|| value.to_string())
}

/// The request that a filled-in form asks for, by the types of the model's own schema.
fn wish(form: &Form, parameters: &[(&str, &Value)]) -> Map<String, Value> {
    let mut wish = Map::new();
    wish.insert("model".to_owned(), form.text(MODEL).into());
    for (name, rule) in parameters {
        if let Some(given) = form.given(name) {
            wish.insert((*name).to_owned(), value_of(given, rule));
        }
    }
    wish
}

/// What was typed, as the parameter's type. What does not fit stays a text, and the API says what is wrong with it.
fn value_of(given: &str, rule: &Value) -> Value {
    let as_text = || Value::from(given);
    if takes(rule, "integer") || takes(rule, "number") {
        return given.parse::<Number>().map_or_else(|_| as_text(), Value::Number);
    }
    if takes(rule, "boolean") {
        return given.parse::<bool>().map_or_else(|_| as_text(), Value::Bool);
    }
    let structured = takes(rule, "array") || takes(rule, "object") || rule["anyOf"].is_array();
    if structured && given.starts_with(['{', '[', '"']) {
        return serde_json::from_str(given).unwrap_or_else(|_| as_text());
    }
    as_text()
}

/// What the form asks for, and who pays.
async fn read(visit: &Visit, body: &[u8]) -> Result<(Map<String, Value>, ProjectId), Problem> {
    let form = Form::read(body);
    let model = visit.get(&format!("/v1/models/{}", path_of(form.text(MODEL)))).await?;
    let project = form.text(PROJECT).parse();
    let project = project.map_err(|_| Problem::new(Code::InvalidRequest, "choose the project that pays"))?;
    Ok((wish(&form, &parameters(visit, &model)), project))
}

/// `POST /console/playground/quote`: the price and the request as code, or every problem of the form.
pub async fn quote(visit: Visit, request: HttpRequest, body: web::Bytes) -> Result<HttpResponse, Problem> {
    let (wish, project) = read(&visit, &body).await?;
    let answer = visit.send_as(project, "/v1/images/generations/quote", &Value::Object(wish.clone())).await;
    let piece = match answer {
        Ok(quote) => html! {
            p .price { "Costs at most " strong { (usd(&quote["price_usd"])) } " for " (quote["num_images"].to_string()) " image(s), " (text(&quote["megapixels"])) " megapixels." }
            (snippets(&visit.base, &wish))
        },
        Err(problem) if problem.code().status().is_client_error() => problems(&problem),
        Err(problem) => return Err(problem),
    };
    Ok(piece_or_page(&request, &piece))
}

fn problems(problem: &Problem) -> Markup {
    let data = problem.error()["data"].clone();
    html! {
        div .notice.bad {
            p { (problem.to_string()) }
            @if let Some(list) = data.as_array() {
                ul { @for one in list { li { (text(&one["message"])) } } }
            }
        }
    }
}

/// A script takes the piece alone; without scripts it is a page.
fn piece_or_page(request: &HttpRequest, piece: &Markup) -> HttpResponse {
    if request.headers().contains_key("x-console-piece") {
        return HttpResponse::Ok().content_type("text/html; charset=utf-8").body(piece.clone().into_string());
    }
    let content = html! { h1 { "Playground" } (piece) p { a href="/console/playground" { "Back to the form" } } };
    page::show("Playground", "/console/playground", &content)
}

/// `POST /console/playground/run`: makes the image in the background; its progress is asked for by its id.
pub async fn run(visit: Visit, request: HttpRequest, body: web::Bytes) -> Result<HttpResponse, Problem> {
    let (mut wish, project) = read(&visit, &body).await?;
    wish.insert("background".to_owned(), Value::Bool(true));
    match visit.send_as(project, "/v1/images/generations", &Value::Object(wish)).await {
        Ok(taken) if request.headers().contains_key("x-console-piece") => {
            Ok(piece_or_page(&request, &progress_piece(&taken)))
        }
        Ok(taken) => Ok(redirect(&format!("/console/generations/{}", text(&taken["id"])))),
        Err(problem) if problem.code().status().is_client_error() => Ok(piece_or_page(&request, &problems(&problem))),
        Err(problem) => Err(problem),
    }
}

/// `GET /console/playground/{id}/progress`.
pub async fn progress(visit: Visit, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let found = visit.get(&format!("/admin/v1/generations/{}", encode(&path))).await?;
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").body(progress_piece(&found).into_string()))
}

fn progress_piece(found: &Value) -> Markup {
    let id = text(&found["id"]);
    let open = found["settled_at"].is_null();
    html! {
        div .run data-run=(id) data-open=(open) {
            p { (state(&found["state"])) " " a href=(format!("/console/generations/{id}")) { "Its page" } }
            @if open { progress aria-label="The image is being made" {} }
            @else { p { "Charged: " strong { (usd(&found["price_usd"])) } } }
            @if !found["error"].is_null() { div .notice.bad { p { (text(&found["error"]["message"])) } } }
            (pictures(found))
        }
    }
}
