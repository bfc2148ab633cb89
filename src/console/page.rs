//! The frame of every page, and the small pieces that pages are made of.

use actix_web::HttpResponse;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::admin_keys;
use super::inside::Visit;
use crate::accounts::AdminAction;
use crate::domain::{Money, Timestamp};

const PAGES: &[(&str, &str)] = &[
    ("/console", "Overview"),
    ("/console/usage", "Usage"),
    ("/console/generations", "Generations"),
    ("/console/projects", "Projects and keys"),
    (admin_keys::ADDRESS, "Admin keys"),
    ("/console/models", "Models"),
    ("/console/playground", "Playground"),
    ("/console/holds", "Open holds"),
    ("/console/drift", "Drift"),
    ("/console/audit", "Audit log"),
];

/// A page of the console; `here` is the address of its entry in the menu.
pub fn show(visit: &Visit, title: &str, here: &str, content: &Markup) -> HttpResponse {
    let page = frame(Some(visit), title, here, content);
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page.into_string())
}

/// A page with the menu of the visitor's role around it.
pub fn frame(visit: Option<&Visit>, title: &str, here: &str, content: &Markup) -> Markup {
    let is_owner = visit.is_some_and(|visit| visit.caller.role.may(AdminAction::Own));
    let menu = html! {
        nav aria-label="Console" {
            ul {
                @for (address, name) in PAGES.iter().filter(|(address, _)| is_owner || *address != admin_keys::ADDRESS) {
                    li { a href=(address) aria-current=[(*address == here).then_some("page")] { (name) } }
                }
            }
        }
        form .sign-out method="post" action="/console/sign-out" { button .quiet type="submit" { "Sign out" } }
    };
    document(title, &menu, content)
}

/// A page without the menu.
pub fn bare(title: &str, content: &Markup) -> Markup {
    document(title, &html! {}, content)
}

fn document(title: &str, menu: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · imagegate" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console/assets/console.css";
                script src="/console/assets/console.js" defer {}
            }
            body {
                a .skip href="#main" { "To the content" }
                header { p .brand { "imagegate" } (menu) }
                p #busy role="status" aria-live="polite" {}
                main #main tabindex="-1" { (content) }
            }
        }
    }
}

/// An amount of the API, such as `0.035000000`, in dollars: at least two places, none of its digits lost.
pub fn usd(amount: &Value) -> Markup {
    amount.as_str().map_or_else(|| html! { "–" }, usd_text)
}

/// The same, of an amount that was added up here.
pub fn usd_of(amount: Money) -> Markup {
    usd_text(&amount.to_string())
}

fn usd_text(exact: &str) -> Markup {
    html! { span .num data-usd=(exact) { (shown(exact)) } }
}

/// An exact amount as people read it.
pub fn shown(exact: &str) -> String {
    let (sign, digits) = exact.strip_prefix('-').map_or(("", exact), |digits| ("−", digits));
    match digits.split_once('.') {
        Some((whole, places)) => format!("{sign}${whole}.{:0<2}", places.trim_end_matches('0')),
        None => format!("{sign}${digits}"),
    }
}

/// An amount of the API as a number that can be added up.
pub fn money(amount: &Value) -> Money {
    amount.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A moment in Unix seconds; the viewer's zone by script, UTC on hover.
pub fn moment(seconds: &Value) -> Markup {
    seconds.as_i64().map_or_else(|| html! { "–" }, |seconds| time(&Timestamp::from_seconds(seconds).rfc3339()))
}

/// A moment as RFC 3339.
pub fn moment_text(text: &Value) -> Markup {
    text.as_str().map_or_else(|| html! { "–" }, time)
}

fn time(rfc3339: &str) -> Markup {
    let utc = rfc3339.replace('T', " ");
    let utc = utc.split('.').next().unwrap_or_default();
    html! { time datetime=(rfc3339) title=(format!("{utc} UTC")) { (utc) " UTC" } }
}

/// The date of a moment in Unix seconds, in UTC.
pub fn day(seconds: i64) -> String {
    Timestamp::from_seconds(seconds).rfc3339().chars().take(10).collect()
}

/// A number of the API, or a dash.
pub fn number(value: &Value) -> Markup {
    html! { span .num { @if value.is_null() { "–" } @else if let Some(text) = value.as_str() { (text) } @else { (value.to_string()) } } }
}

/// A text of the API, or a dash.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

/// What to do where there is nothing to show.
pub fn empty(what: &str, next: &Markup) -> Markup {
    html! { div .empty { p { (what) } p { (next) } } }
}

/// A link to a generation's page.
pub fn generation_link(id: &Value) -> Markup {
    let id = id.as_str().unwrap_or_default();
    html! { a href=(format!("/console/generations/{id}")) { code { (id) } } }
}

/// The list of a page of the API.
pub fn items(page: &Value) -> &[Value] {
    page["data"].as_array().map_or(&[], Vec::as_slice)
}

/// A state with a mark that does not rest on its colour alone.
pub fn state(word: &Value) -> Markup {
    let word = text(word);
    let (class, mark) = match word {
        "succeeded" | "active" => ("state good", "●"),
        "failed" | "expired" => ("state bad", "▲"),
        "queued" | "running" => ("state open", "◐"),
        _ => ("state", "○"),
    };
    html! { span class=(class) { span aria-hidden="true" { (mark) " " } (word) } }
}

/// A new key, shown once; `back` is the address of the page that lists it.
pub fn new_key(visit: &Visit, back: &str, back_label: &str, key: &Value, said: &str) -> HttpResponse {
    let content = html! {
        h1 { "A new key" }
        div .notice.good role="status" {
            p { (said) " It is shown only this once: put it where it is used before you leave this page." }
            p { code #secret { (text(&key["value"])) } " " button .quiet type="button" data-copy="secret" { "Copy" } }
            p .hint { code { (text(&key["id"])) } }
        }
        p { a href=(back) { (back_label) } }
    };
    let here = PAGES.iter().find(|(address, _)| *address != "/console" && back.starts_with(address));
    show(visit, "A new key", here.map_or("", |(address, _)| address), &content)
}

/// What was just done, from the address that a form was sent back to.
pub fn notice(query: &str) -> Markup {
    let done = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "done");
    html! { @if let Some((_, word)) = done { p .notice.good role="status" { (said(&word)) } } }
}

fn said(word: &str) -> &'static str {
    match word {
        "created" => "The project was made.",
        "limits" => "The limits are changed.",
        "credited" => "The amount is booked.",
        "archived" => "The project is archived.",
        "deleted" => "The key no longer works.",
        "key" => "The key's terms are changed.",
        "alias" => "The aliases are changed; every replica knows it within a second.",
        "erased" => "The content is erased.",
        "erasing" => "The content is being erased; what is open, once it has ended.",
        _ => "Done.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_loses_no_digit_and_has_two_places() {
        for (exact, shown) in [
            ("0.035000000", "$0.035"),
            ("12.000000000", "$12.00"),
            ("1.500000000", "$1.50"),
            ("-0.000000001", "−$0.000000001"),
            ("0.000000000", "$0.00"),
        ] {
            let markup = usd(&Value::from(exact)).into_string();
            assert!(markup.contains(&format!(">{shown}<")) && markup.contains(exact), "{markup}");
        }
        assert_eq!(usd(&Value::Null).into_string(), "–");
    }
}
