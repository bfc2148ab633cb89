//! Usage: filters, a chart, and a table of the same numbers, also as CSV.

use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde_json::Value;

use super::chart::stacked;
use super::form::{Form, encode};
use super::inside::Visit;
use super::overview::{bars, day_of, dollars};
use super::page::{self, day, empty, items, money, number, text, usd, usd_of};
use crate::domain::{Money, Timestamp};
use crate::http::{Code, Problem};

const DAY: i64 = 24 * 3600;
/// The most days of one look.
const MOST_DAYS: i64 = 366;
/// Days on a page of the API.
const PAGE_DAYS: i64 = 31;

const GROUPS: &[(&str, &str)] = &[
    ("model", "Model"),
    ("requested_model", "Asked for"),
    ("project_id", "Project"),
    ("api_key_id", "Key"),
    ("size", "Size"),
    ("user_id", "User"),
];
const FILTERS: &[(&str, &str, &str)] = &[
    ("project", "project_ids", "Project's id"),
    ("key", "api_key_ids", "Key's id"),
    ("model", "models", "Model"),
    ("size", "sizes", "Size, such as 1024x768"),
];

/// What is asked for.
struct Question {
    from: i64,
    /// The day after the last one.
    to: i64,
    group: String,
    form: Form,
}

impl Question {
    fn read(query: &str, now: Timestamp) -> Result<Self, Problem> {
        let form = Form::read(query.as_bytes());
        let today = day_of(now);
        let to = form.given("to").map(read_day).transpose()?.unwrap_or(today) + DAY;
        let from = form.given("from").map(read_day).transpose()?.unwrap_or(to - 30 * DAY);
        if from >= to || to - from > MOST_DAYS * DAY {
            let message = format!("the first day must come before the last one, at most {MOST_DAYS} days");
            return Err(Problem::new(Code::InvalidRequest, message));
        }
        let group = form.given("group").unwrap_or("model").to_owned();
        if !GROUPS.iter().any(|(known, _)| *known == group) {
            return Err(Problem::new(Code::InvalidRequest, format!("`{group}` is nothing to group by")));
        }
        Ok(Self { from, to, group, form })
    }

    /// The API's answer, all pages of it together.
    async fn ask(&self, visit: &Visit) -> Result<Value, Problem> {
        let mut filters = String::new();
        for (field, name, _) in FILTERS {
            if let Some(value) = self.form.given(field) {
                filters = format!("{filters}&{name}={}", encode(value));
            }
        }
        let (group, model) = (&self.group, if self.group == "model" { "" } else { ",model" });
        let mut buckets = Vec::new();
        let mut from = self.from;
        while from < self.to {
            let before = (from + PAGE_DAYS * DAY).min(self.to);
            let path = format!(
                "/v1/organization/usage/images?start_time={from}&end_time={before}&group_by={group}{model}&limit={PAGE_DAYS}{filters}"
            );
            buckets.extend(items(&visit.get(&path).await?).iter().cloned());
            from = before;
        }
        Ok(serde_json::json!({ "data": buckets }))
    }
}

/// A date such as `2026-11-21` as its first second in UTC.
fn read_day(text: &str) -> Result<i64, Problem> {
    let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d");
    let midnight = day.ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|midnight| midnight.and_utc().timestamp());
    midnight
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| Problem::new(Code::InvalidRequest, format!("`{text}` is no date such as 2026-11-21")))
}

/// `GET /console/usage`.
pub async fn show(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let question = Question::read(request.query_string(), visit.services().clock.now())?;
    let usage = question.ask(&visit).await?;
    let by_money = question.form.text("show") == "spend";
    let rows: Vec<(&Value, &Value)> = items(&usage)
        .iter()
        .flat_map(|bucket| {
            bucket["results"].as_array().into_iter().flatten().map(move |row| (&bucket["start_time"], row))
        })
        .collect();
    let content = html! {
        h1 { "Usage" }
        (filters(&question))
        @if rows.is_empty() {
            (empty("Nothing was settled in these days that fits the filters.", &html! {
                "Look at more days, or " a href="/console/usage" { "take the filters away" } "."
            }))
        } @else {
            @if by_money {
                (stacked("Spend by day and model", &bars(&usage, "amount_usd"), dollars))
            } @else {
                (stacked("Images by day and model", &bars(&usage, "images"), |images| images.to_string()))
            }
            p { a href=(format!("/console/usage.csv?{}", request.query_string())) download { "Download as CSV" } }
            (table(&question.group, &rows))
        }
    };
    Ok(page::show(&visit, "Usage", "/console/usage", &content))
}

fn filters(question: &Question) -> Markup {
    let form = &question.form;
    html! {
        form .filters method="get" action="/console/usage" {
            div { label for="from" { "From (UTC)" } input id="from" name="from" type="date" value=(day(question.from)); }
            div { label for="to" { "To" } input id="to" name="to" type="date" value=(day(question.to - DAY)); }
            @for (field, _, label) in FILTERS {
                div { label for=(field) { (label) } input id=(field) name=(field) value=(form.text(field)); }
            }
            div {
                label for="group" { "Rows by" }
                select id="group" name="group" {
                    @for (word, label) in GROUPS {
                        option value=(word) selected[*word == question.group] { (label) }
                    }
                }
            }
            div {
                label for="show" { "Chart of" }
                select id="show" name="show" {
                    option value="images" { "Images" }
                    option value="spend" selected[form.text("show") == "spend"] { "Spend" }
                }
            }
            div { button type="submit" { "Show" } }
        }
    }
}

fn table(group: &str, rows: &[(&Value, &Value)]) -> Markup {
    let images: u64 = rows.iter().filter_map(|(_, row)| row["images"].as_u64()).sum();
    let sum = |field: &str| rows.iter().map(|(_, row)| money(&row[field])).sum::<Money>();
    let label = GROUPS.iter().find(|(word, _)| *word == group).map_or("", |(_, label)| label);
    html! {
        div .scroll tabindex="0" role="region" aria-label="Usage as a table" {
            table {
                thead {
                    tr {
                        th scope="col" { "Day (UTC)" }
                        @if group != "model" { th scope="col" { (label) } }
                        th scope="col" { "Model" }
                        th .num scope="col" { "Images" } th .num scope="col" { "Requests" }
                        th .num scope="col" { "Megapixels" } th .num scope="col" { "Spend" } th .num scope="col" { "Our cost" }
                    }
                }
                tbody {
                    @for (start, row) in rows {
                        tr {
                            td { (day(start.as_i64().unwrap_or(0))) }
                            @if group != "model" { td { (text(&row[group])) } }
                            td { (text(&row["model"])) }
                            td .num { (number(&row["images"])) } td .num { (number(&row["num_model_requests"])) }
                            td .num { (number(&row["megapixels"])) }
                            td .num { (usd(&row["amount_usd"])) } td .num { (usd(&row["cost_usd"])) }
                        }
                    }
                }
                tfoot {
                    tr {
                        th scope="row" colspan=(if group == "model" { 2 } else { 3 }) { "All together" }
                        td .num #all-images { (images) } td {} td {}
                        td .num #all-spend { (usd_of(sum("amount_usd"))) } td .num { (usd_of(sum("cost_usd"))) }
                    }
                }
            }
        }
    }
}

/// `GET /console/usage.csv`: the rows of the table.
pub async fn export(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let question = Question::read(request.query_string(), visit.services().clock.now())?;
    visit.note_export("usage", request.query_string()).await?;
    let usage = question.ask(&visit).await?;
    let mut csv =
        "day,project_id,api_key_id,user_id,model,size,images,requests,megapixels,amount_usd,cost_usd\r\n".to_owned();
    for bucket in items(&usage) {
        let start = day(bucket["start_time"].as_i64().unwrap_or(0));
        for row in bucket["results"].as_array().into_iter().flatten() {
            let mut fields = vec![start.clone()];
            fields.extend(["project_id", "api_key_id", "user_id", "model", "size"].map(|name| cell(&row[name])));
            fields.extend(
                ["images", "num_model_requests", "megapixels", "amount_usd", "cost_usd"].map(|name| cell(&row[name])),
            );
            csv.push_str(&fields.join(","));
            csv.push_str("\r\n");
        }
    }
    Ok(HttpResponse::Ok()
        .content_type("text/csv; charset=utf-8")
        .insert_header(("content-disposition", "attachment; filename=\"usage.csv\""))
        .body(csv))
}

/// A cell as RFC 4180 wants it; a text that a spreadsheet would take for a formula is led by an apostrophe.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_break_out_or_be_a_formula() {
        assert_eq!(cell(&"a,b\"c".into()), "\"a,b\"\"c\"");
        assert_eq!(cell(&"=1+1".into()), "'=1+1");
        assert_eq!(cell(&"-0.5".into()), "-0.5");
        assert_eq!(cell(&Value::Null), "");
    }

    #[test]
    fn a_date_is_its_first_second_in_utc() {
        assert_eq!(read_day("2026-11-21").unwrap(), 1_795_219_200);
        assert!(read_day("21.11.2026").is_err() && read_day("1969-12-31").is_err());
    }
}
