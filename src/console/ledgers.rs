//! Open holds, drift, and the audit log.

use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde_json::Value;

use super::form::Form;
use super::generations::table;
use super::inside::Visit;
use super::page::{self, empty, generation_link, items, moment, number, state, text, usd};
use crate::http::Problem;

/// `GET /console/holds`.
pub async fn holds(visit: Visit) -> Result<HttpResponse, Problem> {
    let holds = visit.get("/admin/v1/holds?limit=1000").await?;
    let content = html! {
        h1 { "Open holds" }
        p .hint { "Money that is set aside for generations that have not ended, the oldest first. One that is older than its deadline and an hour wants a look." }
        @if items(&holds).is_empty() {
            (empty("No money is set aside: nothing is under way.", &html! { a href="/console/generations" { "See what has ended" } }))
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Open holds" {
                table {
                    thead { tr { th scope="col" { "Generation" } th scope="col" { "State" } th scope="col" { "Since" } th .num scope="col" { "Seconds" } th .num scope="col" { "Held" } th scope="col" { "Project" } } }
                    tbody {
                        @for hold in items(&holds) {
                            tr {
                                td { (generation_link(&hold["generation_id"])) } td { (state(&hold["state"])) } td { (moment(&hold["opened_at"])) }
                                td .num { (number(&hold["age_seconds"])) } td .num { (usd(&hold["amount_usd"])) } td { code { (text(&hold["project_id"])) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page::show("Open holds", "/console/holds", &content))
}

/// `GET /console/drift`.
pub async fn drift(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let after = Form::read(request.query_string().as_bytes()).query(&["after"]);
    let found = visit.get(&format!("/admin/v1/generations?drifted=true&limit=100&{after}")).await?;
    let content = html! {
        h1 { "Drift" }
        p .hint { "Generations that fal billed another amount for than the catalogue computes: fal's price has changed, or our model file is wrong. The price to the customer is not touched." }
        @if items(&found).is_empty() {
            (empty("fal has billed what the catalogue computes.", &html! { "Compare whole months with " code { "imagegate reconcile" } "." }))
        } @else {
            (table(&found))
            @if found["has_more"] == true {
                p { a href=(format!("/console/drift?after={}", text(&found["last_id"]))) { "Older ones" } }
            }
        }
    };
    Ok(page::show("Drift", "/console/drift", &content))
}

/// `GET /console/audit`.
pub async fn audit(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let after = Form::read(request.query_string().as_bytes()).query(&["after"]);
    let log = visit.get(&format!("/v1/organization/audit_logs?limit=50&{after}")).await?;
    let content = html! {
        h1 { "Audit log" }
        p .hint { "Every change of projects, keys and limits, and who read prompts, secrets and exports, the newest first. Nothing in it is ever changed." }
        @if items(&log).is_empty() {
            (empty("Nothing was changed yet.", &html! { a href="/console/projects" { "Make a project" } }))
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Audit log" {
                table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Who" } th scope="col" { "Project" } th scope="col" { "On what" } th scope="col" { "Details" } } }
                    tbody { @for entry in items(&log) { (audit_row(entry)) } }
                }
            }
            @if log["has_more"] == true {
                p { a href=(format!("/console/audit?after={}", text(&log["last_id"]))) { "Older ones" } }
            }
        }
    };
    Ok(page::show("Audit log", "/console/audit", &content))
}

fn audit_row(entry: &Value) -> Markup {
    let actor = &entry["actor"];
    let who = actor["api_key"]["id"].as_str().unwrap_or_else(|| text(&actor["session"]["user"]["id"]));
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    html! {
        tr {
            td { (moment(&entry["effective_at"])) } td { (text(&entry["type"])) }
            td { code { (who) } @if let Some(ip) = actor["session"]["ip_address"].as_str() { " from " (ip) } }
            td { (text(&entry["project"]["name"])) } td { code { (text(&entry["resource_id"])) } }
            td {
                details {
                    summary { "Before and after" }
                    pre tabindex="0" { (pretty(&entry["before"])) } pre tabindex="0" { (pretty(&entry["after"])) }
                }
            }
        }
    }
}
