//! Projects and keys: made, limited, credited, rotated, archived. A key's value is shown once.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::aliases;
use super::form::{Form, encode};
use super::inside::Visit;
use super::page::{self, empty, items, moment, notice, state, text, usd};
use super::session::redirect;
use crate::accounts::{Adapt, Cursor, KeyFilter, KeyKind, Scope, Scopes};
use crate::http::{Code, Problem};

/// `GET /console/projects`.
pub async fn list(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let after = Form::read(request.query_string().as_bytes()).query(&["after"]);
    let path = format!("/v1/organization/projects?limit=100&include_archived=true&{after}");
    let found = visit.get(&path).await?;
    let content = html! {
        h1 { "Projects and keys" }
        (notice(request.query_string()))
        @if items(&found).is_empty() {
            (empty("There is no project.", &html! { "Make one below; it pays for what its keys make." }))
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Projects" {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Id" } th scope="col" { "Status" } th scope="col" { "Made" } } }
                    tbody {
                        @for project in items(&found) {
                            tr {
                                td { a href=(format!("/console/projects/{}", text(&project["id"]))) { (text(&project["name"])) } }
                                td { code { (text(&project["id"])) } } td { (state(&project["status"])) } td { (moment(&project["created_at"])) }
                            }
                        }
                    }
                }
            }
            @if found["has_more"] == true {
                p { a href=(format!("/console/projects?after={}", text(&found["last_id"]))) { "More" } }
            }
        }
        section .card.narrow aria-labelledby="new" {
            h2 #new { "New project" }
            form method="post" action="/console/projects" {
                label for="name" { "Name" }
                input id="name" name="name" required maxlength="200";
                button type="submit" { "Make the project" }
            }
        }
    };
    Ok(page::show(&visit, "Projects and keys", "/console/projects", &content))
}

/// `POST /console/projects`.
pub async fn create(visit: Visit, body: web::Bytes) -> Result<HttpResponse, Problem> {
    let form = Form::read(&body);
    let made = visit.send(Method::POST, "/v1/organization/projects", &json!({"name": form.text("name")})).await?;
    Ok(redirect(&format!("/console/projects/{}?done=created", text(&made["id"]))))
}

/// `GET /console/projects/{id}`.
pub async fn show(visit: Visit, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = encode(&path);
    let project = visit.get(&format!("/admin/v1/projects/{id}")).await?;
    let keys = visit.get(&format!("/v1/organization/projects/{}/api_keys?limit=100", text(&project["id"]))).await?;
    let mut keys = keys;
    add_budgets(&visit, &project, &mut keys).await?;
    let above = notice(request.query_string());
    let aliases = visit.get(&format!("/admin/v1/model_aliases?project_id={id}")).await?;
    let content = project_page(&project, &keys, &aliases, &above);
    Ok(page::show(&visit, text(&project["name"]), "/console/projects", &content))
}

/// Writes beside each key what it may spend and has spent, for which OpenAI's list of keys has no words.
async fn add_budgets(visit: &Visit, project: &Value, keys: &mut Value) -> Result<(), Problem> {
    let Ok(id) = text(&project["id"]).parse() else { return Ok(()) };
    let filter = KeyFilter { project_id: Some(id), kind: Some(KeyKind::Project), ..KeyFilter::default() };
    let cursor = Cursor { after: None, oldest_first: false, limit: 100 };
    let records = visit.services().accounts.keys_page(&filter, cursor).await?.items;
    for key in keys["data"].as_array_mut().into_iter().flatten() {
        if let Some(record) = records.iter().find(|record| key["id"] == record.id.to_string()) {
            key["spent_usd"] = record.spent.to_string().into();
            key["adapt"] = json!(record.adapt.map(Adapt::names));
            key["join_retries"] = json!(record.join_retries);
            key["budget_usd"] = record.budget.map(|budget| budget.to_string()).into();
        }
    }
    Ok(())
}

fn project_page(project: &Value, keys: &Value, aliases: &Value, above: &Markup) -> Markup {
    let id = text(&project["id"]);
    let archived = project["status"] == "archived";
    html! {
        h1 { (text(&project["name"])) }
        p { code { (id) } " " (state(&project["status"])) }
        (above)
        div .tiles {
            section .card {
                h2 { "Money" }
                dl {
                    div { dt { "Balance" } dd { (usd(&project["balance_usd"])) } }
                    div { dt { "Held" } dd { (usd(&project["held_usd"])) } }
                    div { dt { "Spent this month" } dd { (usd(&project["spent_this_month_usd"])) } }
                    div { dt { "Spend limit" } dd { @if project["spend_limit_usd"].is_null() { "none" } @else { (usd(&project["spend_limit_usd"])) } } }
                    div { dt { "Prepaid" } dd { (if project["prepaid"] == true { "yes" } else { "no" }) } }
                }
                p { a href=(format!("/console/generations?project_id={id}")) { "Its generations" } " · " a href=(format!("/console/usage?project={id}")) { "Its usage" } }
            }
            @if !archived { (limits_form(project)) (credit_form(id)) }
        }
        (keys_section(id, keys, archived))
        @if !archived { (aliases::section(aliases, Some(id), &format!("/console/projects/{id}/aliases"))) }
        (erase_section(id, &project["content_erasure"]))
        @if !archived {
            section .card.narrow aria-labelledby="archive" {
                h2 #archive { "Archive" }
                p .hint { "Its keys stop working on every replica within a second. What it has made and spent stays. It cannot be undone." }
                form method="post" action=(format!("/console/projects/{id}/archive")) data-confirm="Archive this project for good?" {
                    button .danger type="submit" { "Archive the project" }
                }
            }
        }
    }
}

fn erase_section(id: &str, erasure: &Value) -> Markup {
    html! {
        section .card.narrow aria-labelledby="erase" {
            h2 #erase { "Erase" }
            p .hint { "Prompts, parameters and images of all that the project has made so far, and its uploaded files, are gone for good; amounts, models and times stay." }
            @if !erasure.is_null() {
                p {
                    "All from before " (moment(&erasure["before"]))
                    @if erasure["finished_at"].is_null() { " is being erased." } @else { " is erased since " (moment(&erasure["finished_at"])) "." }
                }
            }
            form method="post" action=(format!("/console/projects/{id}/erase")) data-confirm="Erase all prompts, parameters and images of this project for good?" {
                button .danger type="submit" { "Erase its content" }
            }
        }
    }
}

fn limits_form(project: &Value) -> Markup {
    let shown = |value: &Value| {
        let number = || value.as_u64().map_or_else(String::new, |n| n.to_string());
        value.as_str().map_or_else(number, |amount| page::shown(amount).replace('$', ""))
    };
    html! {
        section .card aria-labelledby="limits" {
            h2 #limits { "Limits" }
            form method="post" action=(format!("/console/projects/{}/limits", text(&project["id"]))) {
                label for="project-name" { "Name" }
                input id="project-name" name="name" required maxlength="200" value=(text(&project["name"]));
                label for="spend_limit_usd" { "Spend limit of a month, in US dollars" }
                input id="spend_limit_usd" name="spend_limit_usd" inputmode="decimal" placeholder="none" value=(shown(&project["spend_limit_usd"]));
                label for="concurrent" { "Generations at once" }
                input id="concurrent" name="concurrent" type="number" min="1" placeholder="no limit" value=(shown(&project["limits"]["concurrent_generations"]));
                label for="adapt" { "What may be changed of requests so that they fit a model" }
                input id="adapt" name="adapt" placeholder="nothing; or such as size, seed, or all" value=(names_of(&project["adapt"]));
                label .check { input type="checkbox" name="join_retries" checked[project["join_retries"] == true]; " A request joins an equal one whose client went away" }
                label .check { input type="checkbox" name="prepaid" checked[project["prepaid"] == true]; " Prepaid: spends no more than its balance" }
                button type="submit" { "Change the limits" }
            }
        }
    }
}

fn credit_form(id: &str) -> Markup {
    html! {
        section .card aria-labelledby="credit" {
            h2 #credit { "Credit" }
            form method="post" action=(format!("/console/projects/{id}/credit")) {
                label for="amount_usd" { "US dollars; a correction below zero takes away" }
                input id="amount_usd" name="amount_usd" inputmode="decimal" required placeholder="25.00";
                label for="kind" { "Kind" }
                select id="kind" name="kind" {
                    option value="top_up" { "Top-up: money paid in" }
                    option value="correction" { "Correction of a mistake" }
                    option value="goodwill" { "Goodwill: a gift" }
                }
                label for="reason" { "Why" }
                input id="reason" name="reason" required maxlength="500";
                button type="submit" { "Book it" }
            }
        }
    }
}

fn keys_section(id: &str, keys: &Value, archived: bool) -> Markup {
    html! {
        section aria-labelledby="keys" {
            h2 #keys { "Keys" }
            @if items(keys).is_empty() {
                (empty("The project has no key.", &html! { "Make one below, and make images with it." }))
            } @else {
                div .scroll tabindex="0" role="region" aria-label="Keys" {
                    table {
                        thead { tr { th scope="col" { "Name" } th scope="col" { "Begins" } th scope="col" { "Made" } th scope="col" { "Last used" } th scope="col" { "Ends" } th scope="col" { "Holder" } th .num scope="col" { "Spent" } th .num scope="col" { "Budget" } th scope="col" { "May, from" } th scope="col" { "Do" } } }
                        tbody { @for key in items(keys) { (key_row(id, key)) } }
                    }
                }
            }
            @if !archived {
                form .card.narrow method="post" action=(format!("/console/projects/{id}/key")) {
                    h3 { "New key" }
                    label for="key-name" { "Who will hold it" }
                    input id="key-name" name="name" required maxlength="200" placeholder="a program or a team";
                    label for="budget" { "Budget for its whole life, in US dollars" }
                    input id="budget" name="budget_usd" inputmode="decimal" placeholder="no limit";
                    label for="models" { "Models it may use, one a line" }
                    textarea id="models" name="allowed_models" rows="3" placeholder="every model" {}
                    (scopes_fieldset(None))
                    label for="addresses" { "Addresses and networks it may come from, one a line" }
                    textarea id="addresses" name="allowed_addresses" rows="2" placeholder="any, or such as 10.0.0.0/8" {}
                    button type="submit" { "Make the key" }
                }
            }
        }
    }
}

fn key_row(project: &str, key: &Value) -> Markup {
    let id = text(&key["id"]);
    let name = text(&key["name"]);
    let owner = &key["owner"];
    let given_by_setting = owner["user"]["name"] == "setting";
    let holder = owner["service_account"]["name"].as_str().unwrap_or_else(|| text(&owner["user"]["id"]));
    let action = |deed: &str| format!("/console/projects/{project}/keys/{id}/{deed}");
    html! {
        tr {
            td { (name) br; code { (id) } } td { code { (text(&key["redacted_value"])) } }
            td { (moment(&key["created_at"])) } td { (moment(&key["last_used_at"])) } td { (moment(&key["expires_at"])) } td { (holder) }
            td .num { (usd(&key["spent_usd"])) } td .num { @if key["budget_usd"].is_null() { "none" } @else { (usd(&key["budget_usd"])) } }
            td { (permits(key)) }
            td .deeds {
                @if given_by_setting { span .hint { "Set by a setting" } } @else {
                    form method="post" action=(action("rotate")) { button .quiet type="submit" aria-label=(format!("Rotate {name}")) { "Rotate" } }
                    form method="post" action=(action("delete")) data-confirm="Delete this key? It stops working at once." {
                        button .quiet.danger type="submit" aria-label=(format!("Delete {name}")) { "Delete" }
                    }
                }
                details {
                    summary { "Budget" }
                    form method="post" action=(action("budget")) {
                        label for=(format!("b-{id}")) { "US dollars for its whole life; empty lifts it" }
                        input id=(format!("b-{id}")) name="budget_usd" inputmode="decimal";
                        button .quiet type="submit" { "Set" }
                    }
                }
                details {
                    summary { "Adapt" }
                    form method="post" action=(action("adapt")) {
                        label for=(format!("d-{id}")) { "What may be changed of its requests, such as size, seed, or all, or none; empty: as the project" }
                        input id=(format!("d-{id}")) name="adapt" value=(names_of(&key["adapt"]));
                        button .quiet type="submit" { "Set" }
                    }
                }
                details {
                    summary { "Retries" }
                    form method="post" action=(action("join_retries")) {
                        label for=(format!("j-{id}")) { "Whether a request joins an equal one whose client went away" }
                        select id=(format!("j-{id}")) name="join_retries" {
                            @for (value, words) in [("", "as the project"), ("true", "yes"), ("false", "no")] {
                                option value=(value) selected[key["join_retries"].as_bool().map_or("", |yes| if yes { "true" } else { "false" }) == value] { (words) }
                            }
                        }
                        button .quiet type="submit" { "Set" }
                    }
                }
                details {
                    summary { "Permissions" }
                    form method="post" action=(action("permissions")) {
                        (scopes_fieldset(Some(key)))
                        label for=(format!("a-{id}")) { "Addresses it may come from, one a line; empty: any" }
                        textarea id=(format!("a-{id}")) name="allowed_addresses" rows="2" { (lines_of(&key["allowed_addresses"])) }
                        button .quiet type="submit" { "Set" }
                    }
                }
            }
        }
    }
}

/// What a key may do and from where.
fn permits(key: &Value) -> Markup {
    html! {
        @for scope in texts(&key["scopes"]) { code { (scope) } " " }
        @for network in texts(&key["allowed_addresses"]) { br; "from " code { (network) } }
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn lines_of(list: &Value) -> String {
    texts(list).collect::<Vec<_>>().join("\n")
}

/// What may be changed, as a form has it: `none` for the empty list, nothing where it is not set.
fn names_of(adapt: &Value) -> String {
    match adapt.as_array().map(Vec::as_slice) {
        None => String::new(),
        Some([]) => "none".to_owned(),
        Some(_) => texts(adapt).collect::<Vec<_>>().join(", "),
    }
}

/// A box for each scope: those of a key, or the usual ones for a new one.
fn scopes_fieldset(key: Option<&Value>) -> Markup {
    let has = |scope: Scope| {
        key.map_or_else(|| Scopes::DEFAULT.contains(scope), |key| texts(&key["scopes"]).any(|has| has == scope.name()))
    };
    html! {
        fieldset {
            legend { "What it may do" }
            @for scope in Scope::ALL {
                label .check { input type="checkbox" name="scopes" value=(scope.name()) checked[has(scope)]; " " (scope.name()) }
            }
        }
    }
}

/// `POST /console/projects/{id}/{deed}`.
pub async fn change(
    visit: Visit,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let (id, deed) = path.into_inner();
    let (id, form) = (encode(&id), Form::read(&body));
    let done = match deed.as_str() {
        "limits" => {
            visit.send(Method::PATCH, &format!("/admin/v1/projects/{id}"), &limits(&form)?).await?;
            "limits"
        }
        "credit" => {
            let body = Value::Object(form.object(&["amount_usd", "kind", "reason"]));
            visit.send(Method::POST, &format!("/admin/v1/projects/{id}/credits"), &body).await?;
            "credited"
        }
        "archive" => {
            visit.send(Method::POST, &format!("/v1/organization/projects/{id}/archive"), &json!({})).await?;
            "archived"
        }
        "erase" => {
            visit.send(Method::DELETE, &format!("/admin/v1/projects/{id}/content"), &Value::Null).await?;
            "erasing"
        }
        "key" => return create_key(&visit, &id, &form).await,
        _ => return Err(Problem::new(Code::NotFound, "the console has no such deed")),
    };
    Ok(redirect(&format!("/console/projects/{id}?done={done}")))
}

fn limits(form: &Form) -> Result<Value, Problem> {
    let concurrent = form.given("concurrent").map(str::parse::<u32>).transpose();
    let concurrent =
        concurrent.map_err(|_| Problem::new(Code::InvalidRequest, "generations at once are a whole number"))?;
    Ok(json!({
        "name": form.text("name"),
        "prepaid": form.given("prepaid").is_some(),
        "spend_limit_usd": form.given("spend_limit_usd"),
        "limits": {"concurrent_generations": concurrent},
        "join_retries": form.given("join_retries").is_some(),
        "adapt": form.given("adapt").map(|names| names.split(',').map(str::trim).collect::<Vec<_>>()),
    }))
}

async fn create_key(visit: &Visit, project: &str, form: &Form) -> Result<HttpResponse, Problem> {
    let path = format!("/v1/organization/projects/{project}/service_accounts");
    let mut new = json!({"name": form.text("name"), "scopes": form.all("scopes")});
    let networks = form.lines("allowed_addresses");
    if !networks.is_empty() {
        new["allowed_addresses"] = json!(networks);
    }
    let made = visit.send(Method::POST, &path, &new).await?;
    let key = &made["api_key"];
    let mut terms = form.object(&["name", "budget_usd"]);
    let models = form.lines("allowed_models");
    if !models.is_empty() {
        terms.insert("allowed_models".to_owned(), json!(models));
    }
    if let Err(problem) = set_terms(visit, text(&key["id"]), terms).await {
        // A key without the limits that were asked for must not stay.
        visit.send(Method::DELETE, &format!("{path}/{}", text(&made["id"])), &Value::Null).await?;
        return Err(problem);
    }
    Ok(key_page(visit, project, key, "The key was made."))
}

async fn set_terms(visit: &Visit, key: &str, terms: Map<String, Value>) -> Result<(), Problem> {
    if !terms.is_empty() {
        visit.send(Method::PATCH, &format!("/admin/v1/keys/{key}"), &Value::Object(terms)).await?;
    }
    Ok(())
}

/// Shows a key, once.
fn key_page(visit: &Visit, project: &str, key: &Value, said: &str) -> HttpResponse {
    page::new_key(visit, &format!("/console/projects/{project}"), "Back to the project", key, said)
}

/// `POST /console/projects/{id}/keys/{key}/{deed}`.
pub async fn change_key(
    visit: Visit,
    path: web::Path<(String, String, String)>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let (project, key, deed) = path.into_inner();
    let (project, key, form) = (encode(&project), encode(&key), Form::read(&body));
    // Refuses a key of another project.
    let path = format!("/v1/organization/projects/{project}/api_keys/{key}");
    visit.get(&path).await?;
    match deed.as_str() {
        "rotate" => {
            let rotated = visit.send(Method::POST, &format!("/admin/v1/keys/{key}/rotate"), &json!({})).await?;
            let said = "The key was rotated; the old one works for another day.";
            Ok(key_page(&visit, &project, &rotated, said))
        }
        "delete" => {
            visit.send(Method::DELETE, &path, &Value::Null).await?;
            Ok(redirect(&format!("/console/projects/{project}?done=deleted")))
        }
        "budget" => {
            let terms = json!({"budget_usd": form.given("budget_usd")});
            visit.send(Method::PATCH, &format!("/admin/v1/keys/{key}"), &terms).await?;
            Ok(redirect(&format!("/console/projects/{project}?done=key")))
        }
        "adapt" => {
            let names = form.given("adapt").map(|names| names.split(',').map(str::trim).collect::<Vec<_>>());
            visit.send(Method::PATCH, &format!("/admin/v1/keys/{key}"), &json!({"adapt": names})).await?;
            Ok(redirect(&format!("/console/projects/{project}?done=key")))
        }
        "join_retries" => {
            let join = form.given("join_retries").map(|text| text == "true");
            visit.send(Method::PATCH, &format!("/admin/v1/keys/{key}"), &json!({"join_retries": join})).await?;
            Ok(redirect(&format!("/console/projects/{project}?done=key")))
        }
        "permissions" => {
            let networks = Some(form.lines("allowed_addresses")).filter(|networks| !networks.is_empty());
            let terms = json!({"scopes": form.all("scopes"), "allowed_addresses": networks});
            visit.send(Method::PATCH, &format!("/admin/v1/keys/{key}"), &terms).await?;
            Ok(redirect(&format!("/console/projects/{project}?done=key")))
        }
        _ => Err(Problem::new(Code::NotFound, "the console has no such deed")),
    }
}
