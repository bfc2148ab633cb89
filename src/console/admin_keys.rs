//! Admin keys: who may operate the gateway, for owners only. A key's value is shown once.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::form::{Form, encode};
use super::inside::Visit;
use super::page::{self, empty, items, moment, notice, text};
use super::session::redirect;
use crate::accounts::{AdminAction, Role};
use crate::http::{Code, Problem};

/// Where the page is.
pub const ADDRESS: &str = "/console/admin-keys";
const TITLE: &str = "Admin keys";

/// Refuses everybody but owners, also what the API would show them: keys are theirs to know.
fn demand_owner(visit: &Visit) -> Result<(), Problem> {
    if visit.caller.role.may(AdminAction::Own) {
        return Ok(());
    }
    let message = format!("the role `{}` does not permit managing admin keys; ask an owner", visit.caller.role);
    Err(Problem::new(Code::PermissionDenied, message))
}

/// `GET /console/admin-keys`.
pub async fn list(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    demand_owner(&visit)?;
    let after = Form::read(request.query_string().as_bytes()).query(&["after"]);
    let found = visit.get(&format!("/v1/organization/admin_api_keys?limit=100&{after}")).await?;
    let own = visit.caller.api_key_id.to_string();
    let content = html! {
        h1 { (TITLE) }
        (notice(request.query_string()))
        @if items(&found).is_empty() {
            (empty("There is no further admin key.", &html! { "Make one below." }))
        } @else {
            div .scroll tabindex="0" role="region" aria-label=(TITLE) {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Begins" } th scope="col" { "Role" } th scope="col" { "Made" } th scope="col" { "Last used" } th scope="col" { "Ends" } th scope="col" { "From" } th scope="col" { "Do" } } }
                    tbody { @for key in items(&found) { (row(key, &own)) } }
                }
            }
            @if found["has_more"] == true {
                p { a href=(format!("{ADDRESS}?after={}", text(&found["last_id"]))) { "More" } }
            }
        }
        section .card.narrow aria-labelledby="new" {
            h2 #new { "New admin key" }
            form method="post" action=(ADDRESS) {
                label for="name" { "Who will hold it" }
                input id="name" name="name" required maxlength="200" placeholder="a person or a program";
                label for="role" { "Role" }
                select id="role" name="role" {
                    @for role in Role::ALL.iter().rev() { option value=(role.name()) { (role.name()) ": " (duty(*role)) } }
                }
                label for="addresses" { "Addresses and networks it may come from, one a line" }
                textarea id="addresses" name="allowed_addresses" rows="2" placeholder="any, or such as 10.0.0.0/8" {}
                button type="submit" { "Make the key" }
            }
        }
    };
    Ok(page::show(&visit, TITLE, ADDRESS, &content))
}

fn row(key: &Value, own: &str) -> Markup {
    let (id, name) = (text(&key["id"]), text(&key["name"]));
    html! {
        tr {
            td { (name) @if id == own { " (yours)" } br; code { (id) } }
            td { code { (text(&key["redacted_value"])) } } td { (text(&key["owner"]["role"])) }
            td { (moment(&key["created_at"])) } td { (moment(&key["last_used_at"])) } td { (moment(&key["expires_at"])) }
            td {
                @match key["allowed_addresses"].as_array() {
                    Some(networks) => { @for network in networks { code { (text(network)) } " " } }
                    None => "anywhere",
                }
            }
            td .deeds {
                @if key["owner"]["name"] == "setting" { span .hint { "Set by a setting" } } @else {
                    form method="post" action=(format!("{ADDRESS}/{id}/revoke")) data-confirm="Revoke this admin key? It stops working at once, and its sessions end." {
                        button .quiet.danger type="submit" aria-label=(format!("Revoke {name}")) { "Revoke" }
                    }
                }
            }
        }
    }
}

/// What a role permits.
const fn duty(role: Role) -> &'static str {
    match role {
        Role::Owner => "everything, admin keys included",
        Role::Operator => "projects, keys, limits and webhooks",
        Role::Billing => "credits, refunds, spend limits and alerts",
        Role::ReadOnly => "reads everything but secrets",
    }
}

/// `POST /console/admin-keys`.
pub async fn create(visit: Visit, body: web::Bytes) -> Result<HttpResponse, Problem> {
    demand_owner(&visit)?;
    let form = Form::read(&body);
    // The API takes a missing role for `owner`; a form that has lost its role must not make one.
    let role = form.given("role").ok_or_else(|| Problem::new(Code::InvalidRequest, "choose a role for the key"))?;
    let mut new = json!({"name": form.text("name"), "role": role});
    let networks = form.lines("allowed_addresses");
    if !networks.is_empty() {
        new["allowed_addresses"] = json!(networks);
    }
    let made = visit.send(Method::POST, "/v1/organization/admin_api_keys", &new).await?;
    let said = format!("The key was made with the role `{role}`.");
    Ok(page::new_key(&visit, ADDRESS, "Back to the admin keys", &made, &said))
}

/// `POST /console/admin-keys/{id}/revoke`.
pub async fn revoke(visit: Visit, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    demand_owner(&visit)?;
    let path = format!("/v1/organization/admin_api_keys/{}", encode(&path));
    visit.send(Method::DELETE, &path, &Value::Null).await?;
    Ok(redirect(&format!("{ADDRESS}?done=deleted")))
}
