//! The operator's aliases: of all projects on the page of models, of one project on its own page.

use actix_web::http::Method;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::form::{Form, encode};
use super::inside::Visit;
use super::page::{items, text};
use super::session::redirect;
use crate::http::{Code, Problem};

/// The aliases of one project, or of all, and forms to set and delete them. `action` is where the forms go.
pub fn section(aliases: &Value, project: Option<&str>, action: &str) -> Markup {
    let own = |alias: &&Value| alias["project_id"].as_str() == project;
    let rows: Vec<&Value> = items(aliases).iter().filter(own).collect();
    let whose = if project.is_some() { "this project" } else { "every project" };
    html! {
        section aria-labelledby="aliases" {
            h2 #aliases { "Aliases" }
            p .hint { "Names that " (whose) " may ask for, each for a model of the catalogue. Their values pass the model's limits like a client's." }
            @if !rows.is_empty() {
                div .scroll tabindex="0" role="region" aria-label="Aliases" {
                    table {
                        thead { tr { th scope="col" { "Alias" } th scope="col" { "Model" } th scope="col" { "Defaults" } th scope="col" { "Fixed" } th scope="col" { "Do" } } }
                        tbody { @for alias in rows { (row(alias, action)) } }
                    }
                }
            }
            form .card.narrow method="post" action=(format!("{action}/set")) {
                h3 { "Set an alias" }
                label for="alias-id" { "What clients ask for" }
                input id="alias-id" name="id" required maxlength="100" placeholder="dall-e-3";
                label for="alias-target" { "The model that it stands for" }
                input id="alias-target" name="target" required maxlength="200" placeholder="flux/dev";
                label for="alias-name" { "What the list of models calls it" }
                input id="alias-name" name="name" maxlength="200" placeholder="as the model";
                label for="alias-defaults" { "Values where a request gives none, as a JSON object" }
                textarea id="alias-defaults" name="defaults" rows="2" placeholder="{}" {}
                label for="alias-fixed" { "Values that no request can change, as a JSON object" }
                textarea id="alias-fixed" name="fixed" rows="2" placeholder="{}" {}
                button type="submit" { "Set the alias" }
            }
        }
    }
}

fn row(alias: &Value, action: &str) -> Markup {
    let id = text(&alias["id"]);
    let values = |values: &Value| values.as_object().filter(|values| !values.is_empty()).map(|_| values.to_string());
    html! {
        tr {
            td { strong { (id) } @if let Some(name) = alias["name"].as_str() { br; span .hint { (name) } } }
            td { (text(&alias["target"])) }
            @for values in [values(&alias["defaults"]), values(&alias["fixed"])] {
                td { @if let Some(values) = values { code { (values) } } @else { "–" } }
            }
            td .deeds {
                @if alias["origin"] == "file" { span .hint { "Set by the aliases file" } } @else {
                    form method="post" action=(format!("{action}/delete")) data-confirm="Delete this alias? Requests for it are answered as without it." {
                        input type="hidden" name="id" value=(id);
                        button .quiet.danger type="submit" aria-label=(format!("Delete {id}")) { "Delete" }
                    }
                }
            }
        }
    }
}

/// Sets or deletes an alias, as a form of [`section`] says.
pub async fn change(visit: &Visit, project: Option<&str>, action: &str, form: &Form) -> Result<(), Problem> {
    match action {
        "set" => {
            let mut alias = form.object(&["id", "target", "name"]);
            for name in ["defaults", "fixed"] {
                alias.insert(name.to_owned(), Value::Object(values(form, name)?));
            }
            alias.insert("project_id".to_owned(), json!(project));
            visit.send(Method::POST, "/admin/v1/model_aliases", &Value::Object(alias)).await?;
        }
        "delete" => {
            let query = project.map_or_else(String::new, |project| format!("?project_id={}", encode(project)));
            let id: Vec<String> = form.text("id").split('/').map(encode).collect();
            let path = format!("/admin/v1/model_aliases/{}{query}", id.join("/"));
            visit.send(Method::DELETE, &path, &Value::Null).await?;
        }
        _ => return Err(Problem::new(Code::NotFound, "unknown action")),
    }
    Ok(())
}

fn values(form: &Form, name: &str) -> Result<Map<String, Value>, Problem> {
    let Some(given) = form.given(name) else { return Ok(Map::new()) };
    let fault = |error| Problem::new(Code::InvalidRequest, format!("`{name}` must be a JSON object: {error}"));
    serde_json::from_str(given).map_err(fault)
}

/// `POST /console/models/aliases/{action}`: an alias of all projects.
pub async fn change_of_all(visit: Visit, path: web::Path<String>, body: web::Bytes) -> Result<HttpResponse, Problem> {
    change(&visit, None, &path, &Form::read(&body)).await?;
    Ok(redirect("/console/models?done=alias"))
}

/// `POST /console/projects/{id}/aliases/{action}`: an alias of one project.
pub async fn change_of_project(
    visit: Visit,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let (project, action) = path.into_inner();
    change(&visit, Some(&project), &action, &Form::read(&body)).await?;
    Ok(redirect(&format!("/console/projects/{}?done=alias", encode(&project))))
}
