//! The overview: today, this month, what waits, who spends.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use maud::{Markup, html};
use serde_json::Value;

use super::chart::{Bar, stacked};
use super::inside::Visit;
use super::page::{self, empty, items, money, text, usd_of};
use crate::domain::{Money, Timestamp};
use crate::http::Problem;
use crate::ledger::Books;

const DAY: i64 = 24 * 3600;

/// What was settled in a span of time.
#[derive(Default)]
struct Sums {
    requests: u64,
    failures: u64,
    images: u64,
    price: Money,
    cost: Money,
}

impl Sums {
    fn of(margins: &Value) -> Self {
        let count = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
        items(margins).iter().fold(Self::default(), |sums, row| Self {
            requests: sums.requests + count(row, "requests"),
            failures: sums.failures + count(row, "failures"),
            images: sums.images + count(row, "images"),
            price: [sums.price, money(&row["price_usd"])].into_iter().sum(),
            cost: [sums.cost, money(&row["cost_usd"])].into_iter().sum(),
        })
    }

    fn error_rate(&self) -> String {
        let all = self.requests + self.failures;
        if all == 0 {
            return "–".to_owned();
        }
        let per_mille = self.failures * 1000 / all;
        format!("{}.{} %", per_mille / 10, per_mille % 10)
    }
}

/// `GET /console`.
pub async fn show(visit: Visit) -> Result<HttpResponse, Problem> {
    let now = visit.services().clock.now();
    let today = day_of(now);
    let month = Books::month_of(now).seconds();
    let day_sums = Sums::of(&visit.get(&format!("/admin/v1/margins?start_time={today}")).await?);
    let month_sums = Sums::of(&visit.get(&format!("/admin/v1/margins?start_time={month}")).await?);
    let holds = visit.get("/admin/v1/holds?limit=1000").await?;
    let from = today - 29 * DAY;
    let by_model = format!("/v1/organization/usage/images?start_time={from}&group_by=model&limit=31");
    let by_model = visit.get(&by_model).await?;
    let by_key = format!("/v1/organization/usage/images?start_time={month}&group_by=project_id,api_key_id&limit=31");
    let by_key = visit.get(&by_key).await?;
    let projects = visit.get("/v1/organization/projects?limit=100&include_archived=true").await?;
    let content = html! {
        h1 { "Overview" }
        (waiting(&holds))
        div .tiles {
            (tiles("Today (UTC)", &day_sums))
            (tiles("This month (UTC)", &month_sums))
        }
        section aria-labelledby="days" {
            h2 #days { "The last thirty days" }
            @if items(&by_model).iter().all(|bucket| bucket["results"].as_array().is_none_or(Vec::is_empty)) {
                (empty("Nothing was settled yet.", &html! {
                    "Make an image in the " a href="/console/playground" { "playground" }
                    ", or give a " a href="/console/projects" { "project" } " a key."
                }))
            } @else {
                (stacked("Images by day and model", &bars(&by_model, "images"), |images| images.to_string()))
                (stacked("Spend by day and model", &bars(&by_model, "amount_usd"), dollars))
                p { a href="/console/usage" { "The same as a table, with filters" } }
            }
        }
        (top(&by_key, &projects))
    };
    Ok(page::show("Overview", "/console", &content))
}

/// An amount of nano-dollars on an axis.
pub fn dollars(nanos: i64) -> String {
    page::shown(&Money::from_nanos(nanos).to_string())
}

/// What waits at the provider now.
fn waiting(holds: &Value) -> Markup {
    let count = |state: &str| items(holds).iter().filter(|hold| hold["state"] == state).count();
    html! {
        p .waiting {
            "Waiting now: " strong #waiting-now { (items(holds).len()) }
            " (" (count("queued")) " queued, " (count("running")) " running). "
            a href="/console/holds" { "Open holds" }
        }
    }
}

fn tiles(title: &str, sums: &Sums) -> Markup {
    let margin = sums.price.checked_sub(sums.cost).unwrap_or_default();
    html! {
        section .card {
            h2 { (title) }
            dl {
                div { dt { "Images" } dd { (sums.images) } }
                div { dt { "Spend" } dd { (usd_of(sums.price)) } }
                div { dt { "Our cost" } dd { (usd_of(sums.cost)) } }
                div { dt { "Margin" } dd { (usd_of(margin)) } }
                div { dt { "Requests" } dd { (sums.requests + sums.failures) } }
                div { dt { "Error rate" } dd { (sums.error_rate()) } }
            }
        }
    }
}

/// The buckets of a usage page as bars by model; money in nano-dollars.
pub fn bars(usage: &Value, field: &str) -> Vec<Bar> {
    let bar = |bucket: &Value| {
        let mut parts = BTreeMap::<String, i64>::new();
        for row in bucket["results"].as_array().into_iter().flatten() {
            let amount = row[field].as_i64().unwrap_or_else(|| money(&row[field]).nanos());
            *parts.entry(text(&row["model"]).to_owned()).or_default() += amount;
        }
        Bar { label: page::day(bucket["start_time"].as_i64().unwrap_or(0)).chars().skip(5).collect(), parts }
    };
    items(usage).iter().map(bar).collect()
}

/// Who spent most this month.
fn top(usage: &Value, projects: &Value) -> Markup {
    let mut by_project = BTreeMap::<&str, (u64, Money)>::new();
    let mut by_key = BTreeMap::<&str, (u64, Money)>::new();
    for row in items(usage).iter().flat_map(|bucket| bucket["results"].as_array().into_iter().flatten()) {
        for (sums, name) in [(&mut by_project, "project_id"), (&mut by_key, "api_key_id")] {
            let sum = sums.entry(text(&row[name])).or_default();
            sum.0 += row["images"].as_u64().unwrap_or(0);
            sum.1 = [sum.1, money(&row["amount_usd"])].into_iter().sum();
        }
    }
    let name_of = |id: &str| {
        let project = items(projects).iter().find(|project| project["id"] == id);
        project.map_or(id, |project| text(&project["name"])).to_owned()
    };
    html! {
        @if !by_project.is_empty() {
            div .tiles {
                section .card {
                    h2 { "Top projects this month" }
                    (ranking(by_project, |id| html! { a href=(format!("/console/projects/{id}")) { (name_of(id)) } }))
                }
                section .card {
                    h2 { "Top keys this month" }
                    (ranking(by_key, |id| html! {
                        a href=(format!("/console/generations?api_key_id={id}")) { code { (id) } }
                    }))
                }
            }
        }
    }
}

fn ranking(sums: BTreeMap<&str, (u64, Money)>, link: impl Fn(&str) -> Markup) -> Markup {
    let mut ranked: Vec<_> = sums.into_iter().collect();
    ranked.sort_by_key(|(_, (_, price))| std::cmp::Reverse(*price));
    html! {
        div .scroll tabindex="0" role="region" aria-label="Ranking" {
            table {
                thead { tr { th scope="col" { "Who" } th .num scope="col" { "Images" } th .num scope="col" { "Spend" } } }
                tbody {
                    @for (id, (images, price)) in ranked.into_iter().take(10) {
                        tr { td { (link(id)) } td .num { (images) } td .num { (usd_of(price)) } }
                    }
                }
            }
        }
    }
}

/// When a moment's day began, in UTC.
pub fn day_of(now: Timestamp) -> i64 {
    now.seconds() - now.seconds().rem_euclid(DAY)
}
