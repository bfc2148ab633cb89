//! Generations: the live list, and a page for each with its whole way.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde_json::Value;

use super::form::{Form, encode};
use super::inside::Visit;
use super::page::{self, empty, generation_link, items, moment, moment_text, notice, number, state, text, usd};
use super::session::redirect;
use crate::http::{Code, Problem};

const FILTERS: &[&str] =
    &["state", "model", "project_id", "api_key_id", "user", "fal_request_id", "start_time", "end_time"];
const STATES: &[&str] = &["queued", "running", "succeeded", "failed", "cancelled", "expired"];

/// `GET /console/generations`.
pub async fn list(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let form = Form::read(request.query_string().as_bytes());
    if let Some(wanted) = form.given("search") {
        return Ok(redirect(&search(&visit, wanted).await?));
    }
    let query = form.query(&[FILTERS, &["after"]].concat());
    let found = visit.get(&format!("/admin/v1/generations?limit=50&{query}")).await?;
    let filters = form.query(FILTERS);
    let content = html! {
        h1 { "Generations" }
        form .filters method="get" action="/console/generations" role="search" {
            div {
                label for="search" { "Search" }
                input id="search" name="search" type="search" placeholder="id, fal's id, or key_…";
            }
            div { button type="submit" { "Find" } }
        }
        (filter_form(&form))
        @if items(&found).is_empty() {
            (empty("No generation fits.", &html! {
                a href="/console/generations" { "Take the filters away" } ", or make an image in the "
                a href="/console/playground" { "playground" } "."
            }))
        } @else {
            p .tools {
                label { input #live type="checkbox"; " Live: look again every five seconds" }
                " " a href=(format!("/console/generations.csv?{filters}")) download { "Download all as CSV" }
            }
            (table(&found))
            @if found["has_more"] == true {
                p { a href=(format!("/console/generations?{filters}&after={}", text(&found["last_id"]))) { "Older ones" } }
            }
        }
    };
    Ok(page::show("Generations", "/console/generations", &content))
}

/// Where what was searched for is shown.
async fn search(visit: &Visit, wanted: &str) -> Result<String, Problem> {
    if wanted.starts_with("key_") {
        return Ok(format!("/console/generations?api_key_id={}", encode(wanted)));
    }
    let id = encode(wanted);
    match visit.get(&format!("/admin/v1/generations/{id}")).await {
        Ok(_) => Ok(format!("/console/generations/{id}")),
        Err(problem) if problem.code() == Code::NotFound => Ok(format!("/console/generations?fal_request_id={id}")),
        Err(problem) => Err(problem),
    }
}

fn filter_form(form: &Form) -> Markup {
    html! {
        form .filters method="get" action="/console/generations" {
            div {
                label for="state" { "State" }
                select id="state" name="state" {
                    option value="" { "Any" }
                    @for word in STATES { option value=(word) selected[form.text("state") == *word] { (word) } }
                }
            }
            @for (name, label) in [("model", "Model"), ("project_id", "Project's id"), ("api_key_id", "Key's id"), ("user", "User")] {
                div { label for=(name) { (label) } input id=(name) name=(name) value=(form.text(name)); }
            }
            div { button type="submit" { "Filter" } }
        }
    }
}

/// A list of generations.
pub fn table(found: &Value) -> Markup {
    html! {
        div #live-region .scroll tabindex="0" role="region" aria-label="Generations" {
            table {
                thead {
                    tr {
                        th scope="col" { "Id" } th scope="col" { "State" } th scope="col" { "When" } th scope="col" { "Model" }
                        th .num scope="col" { "Images" } th .num scope="col" { "Price" } th .num scope="col" { "Our cost" }
                        th scope="col" { "Key" }
                    }
                }
                tbody {
                    @for row in items(found) {
                        tr {
                            td { (generation_link(&row["id"])) } td { (state(&row["state"])) } td { (moment(&row["created_at"])) }
                            td { (text(&row["model"])) } td .num { (number(&row["num_images"])) }
                            td .num { (usd(&row["price_usd"])) }
                            td .num {
                                (usd(&row["cost_usd"]))
                                @if let Some(drift) = row["drift_usd"].as_str() { " (drift " (page::shown(drift)) ")" }
                            }
                            td { code { (text(&row["api_key_id"])) } }
                        }
                    }
                }
            }
        }
    }
}

/// `GET /console/generations.csv`: every one that fits, as a stream.
pub async fn export(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let query = Form::read(request.query_string().as_bytes()).query(FILTERS);
    let answer = visit.stream(&format!("/admin/v1/generations?format=csv&{query}")).await?;
    let (_, mut response) = answer.into_parts();
    response.headers_mut().insert(
        actix_web::http::header::CONTENT_DISPOSITION,
        actix_web::http::header::HeaderValue::from_static("attachment; filename=\"generations.csv\""),
    );
    Ok(response)
}

/// `GET /console/generations/{id}`.
pub async fn show(visit: Visit, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let found = visit.get(&format!("/admin/v1/generations/{}", encode(&path))).await?;
    let open = found["settled_at"].is_null();
    let content = html! {
        h1 { "Generation" }
        p { code { (text(&found["id"])) } " " (state(&found["state"])) @if open { " " span #still-open data-refresh { "This page looks again by itself." } } }
        (notice(request.query_string()))
        (pictures(&found))
        @if !found["error"].is_null() {
            section .notice.bad aria-labelledby="error" {
                h2 #error { "Why it did not succeed" }
                p { (text(&found["error"]["message"])) }
                pre tabindex="0" { (pretty(&found["error"])) }
            }
        }
        div .tiles {
            section .card { h2 { "Money" } (money_list(&found)) }
            section .card { h2 { "What it is" } (facts(&found)) }
        }
        (timeline(&found))
        section {
            h2 { "Parameters" }
            @if let Some(prompt) = found["prompt"].as_str() { p { "Prompt: " q { (prompt) } } }
            @else if !found["erased_at"].is_null() { p .hint { "Prompt, parameters and images were erased on request: " (moment(&found["erased_at"])) } }
            @else { p .hint { "The prompt is not kept: the project's data retention is set to none." } }
            pre tabindex="0" { (pretty(&found["parameters"])) }
        }
        (ledger(&found))
        @if !open && found["erased_at"].is_null() {
            section .card.narrow aria-labelledby="erase" {
                h2 #erase { "Erase" }
                p .hint { "Prompt, parameters and images are gone for good; amounts, model and times stay." }
                form method="post" action=(format!("/console/generations/{}/erase", text(&found["id"]))) data-confirm="Erase the prompt, parameters and images of this generation for good?" {
                    button .danger type="submit" { "Erase its content" }
                }
            }
        }
    };
    Ok(page::show("Generation", "/console/generations", &content))
}

/// `POST /console/generations/{id}/erase`.
pub async fn erase(visit: Visit, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = encode(&path);
    visit.send(Method::DELETE, &format!("/admin/v1/generations/{id}/content"), &Value::Null).await?;
    Ok(redirect(&format!("/console/generations/{id}?done=erased")))
}

/// What was delivered.
pub fn pictures(found: &Value) -> Markup {
    let count = if found["state"] == "succeeded" && found["erased_at"].is_null() {
        found["num_images"].as_u64().unwrap_or(0)
    } else {
        0
    };
    let id = text(&found["id"]);
    html! {
        @if count > 0 {
            div .pictures {
                @for n in 0..count {
                    a href=(format!("/console/generations/{id}/images/{n}")) {
                        img src=(format!("/console/generations/{id}/images/{n}")) alt=(format!("Image {} of {count}", n + 1));
                    }
                }
            }
        }
    }
}

fn money_list(found: &Value) -> Markup {
    html! {
        dl {
            div { dt { "Price" } dd { (usd(&found["price_usd"])) } }
            div { dt { "Our cost (" (text(&found["cost_source"])) ")" } dd { (usd(&found["cost_usd"])) } }
            div { dt { "Margin" } dd { (usd(&found["margin_usd"])) } }
            div { dt { "Held at most" } dd { (usd(&found["hold_usd"])) } }
            div { dt { "Billable units" } dd { (number(&found["billable_units"])) } }
            div { dt { "Price of a unit" } dd { (usd(&found["unit_price_usd"])) } }
            @if !found["drift_usd"].is_null() { div { dt { "Drift" } dd { (usd(&found["drift_usd"])) } } }
        }
    }
}

fn facts(found: &Value) -> Markup {
    let project = text(&found["project_id"]);
    html! {
        dl {
            div { dt { "Model" } dd { (text(&found["model"])) } }
            div { dt { "Endpoint" } dd { code { (text(&found["endpoint"])) } } }
            div { dt { "fal's id" } dd { code { (text(&found["fal_request_id"])) } } }
            div { dt { "Project" } dd { a href=(format!("/console/projects/{project}")) { code { (project) } } } }
            div { dt { "Key" } dd { code { (text(&found["api_key_id"])) } } }
            div { dt { "User" } dd { (text(&found["user"])) } }
            div { dt { "Images" } dd { (number(&found["num_images"])) " of " (number(&found["ordered_images"])) } }
            div { dt { "Size" } dd { (text(&found["size"])) } }
            div { dt { "Megapixels" } dd { (number(&found["megapixels"])) } }
            div { dt { "HTTP request" } dd { code { (text(&found["request_id"])) } } }
        }
    }
}

fn timeline(found: &Value) -> Markup {
    let attempts = found["attempts"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    html! {
        section {
            h2 { "Its way" }
            ol .timeline {
                li { (moment(&found["created_at"])) " reserved, " (usd(&found["hold_usd"])) " held" }
                @for attempt in attempts {
                    li { (moment_text(&attempt["submitted_at"])) " taken by fal as " code { (text(&attempt["fal_request_id"])) } " (" (text(&attempt["endpoint"])) ", key " (text(&attempt["credential"])) ")" }
                }
                @if !found["started_at"].is_null() { li { (moment(&found["started_at"])) " seen to run" } }
                @for attempt in attempts.iter().filter(|attempt| !attempt["ended_at"].is_null()) {
                    li { (moment_text(&attempt["ended_at"])) " attempt " (number(&attempt["n"])) " " (text(&attempt["outcome"])) }
                }
                @if found["settled_at"].is_null() {
                    li { "still open; late after " (moment(&found["deadline_at"])) }
                } @else {
                    li { (moment(&found["settled_at"])) " settled: " (text(&found["reason"])) ", " (usd(&found["price_usd"])) }
                }
            }
        }
    }
}

fn ledger(found: &Value) -> Markup {
    let entries = found["ledger"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    html! {
        section {
            h2 { "In the ledger" }
            @if entries.is_empty() { p .hint { "It has moved nothing." } } @else {
                div .scroll tabindex="0" role="region" aria-label="Ledger entries" {
                    table {
                        thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Account" } th .num scope="col" { "Amount" } th scope="col" { "Why" } } }
                        tbody {
                            @for entry in entries {
                                tr { td { (moment_text(&entry["created_at"])) } td { (text(&entry["kind"])) } td { (text(&entry["account"])) } td .num { (usd(&entry["amount_usd"])) } td { (text(&entry["reason"])) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
