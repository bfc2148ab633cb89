//! `/metrics`: who may read it, that it counts what happens, and that dashboard, alerts and documentation speak of it.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::receiver::Receiver;
use crate::support::{ADMIN_KEY, Database, Gateway, House, client, eventually, free_port, on_both_databases, t_rex};

on_both_databases!(
    what_happens_is_counted,
    only_the_operator_reads_the_metrics,
    the_metrics_need_no_key_at_the_operators_own_address,
    dashboard_alerts_and_documentation_name_exactly_what_there_is,
);

/// The samples by their name and labels as they are written.
async fn scrape(gateway: &Gateway) -> BTreeMap<String, f64> {
    let answer = gateway.admin(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    samples(&text)
}

fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

/// The sum of all samples of a name whose labels hold each of these.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of_name = samples.iter().filter(|(key, _)| key.split('{').next() == Some(name));
    of_name.filter(|(key, _)| labels.iter().all(|label| key.contains(label))).map(|(_, value)| value).sum()
}

/// A gateway that has made two images, refused a request, and called a customer.
async fn busy_house(kind: Database) -> House {
    let house = House::with(kind, Duration::from_millis(300), &[("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "true")]).await;
    let receiver = Receiver::new(&[]);
    let mut wish = t_rex();
    assert_eq!(house.ask(&wish).await.0, 201);
    wish["webhook_url"] = json!(receiver.url);
    assert_eq!(house.ask(&wish).await.0, 201);
    wish["image_size"] = json!({"width": 7, "height": 7});
    assert_eq!(house.ask(&wish).await.0, 400);
    eventually(Duration::from_secs(20), || async {
        let seen = scrape(&house.gateway).await;
        (sum(&seen, "imagegate_webhook_attempts_total", &["delivered"]) > 0.0).then_some(())
    })
    .await;
    house
}

async fn what_happens_is_counted(kind: Database) {
    let house = busy_house(kind).await;
    let seen = scrape(&house.gateway).await;
    let model = t_rex()["model"].as_str().unwrap().to_owned();
    let of_model = format!("model=\"{model}\"");
    let counted = |name: &str, labels: &[&str]| sum(&seen, name, labels);
    assert_eq!(counted("imagegate_image_requests_total", &[&of_model, "status=\"201\""]), 2.0);
    assert_eq!(counted("imagegate_generations_total", &[&of_model, "state=\"succeeded\""]), 2.0);
    assert_eq!(counted("imagegate_images_delivered_total", &[&of_model]), 2.0);
    let route = "http_route=\"/v1/images/generations\"";
    assert_eq!(
        counted("http_server_request_duration_seconds_count", &[route, "http_response_status_code=\"201\""]),
        2.0
    );
    assert_eq!(
        counted("http_server_request_duration_seconds_count", &[route, "http_response_status_code=\"400\""]),
        1.0
    );
    assert_eq!(counted("imagegate_provider_calls_total", &["operation=\"submit\"", "outcome=\"taken\""]), 2.0);
    assert_eq!(counted("imagegate_provider_calls_total", &["operation=\"look\"", "outcome=\"delivered\""]), 2.0);
    assert_eq!(counted("imagegate_added_latency_seconds_count", &[&of_model]), 2.0);
    let (ours, all) = (
        counted("imagegate_added_latency_seconds_sum", &[&of_model]),
        counted("http_server_request_duration_seconds_sum", &[route, "http_response_status_code=\"201\""]),
    );
    assert!(
        ours > 0.0 && all - ours >= 0.6,
        "of {all} s in all, {ours} s are said to be ours, though the provider takes 0.3 s each"
    );
    assert_eq!(counted("imagegate_books_call_duration_seconds_count", &["operation=\"reserve\""]), 2.0);
    assert_eq!(counted("imagegate_books_call_duration_seconds_count", &["operation=\"finish\""]), 2.0);
    assert!(counted("imagegate_books_commit_size_sum", &[]) >= counted("imagegate_books_commit_size_count", &[]));
    assert_eq!(counted("imagegate_books_available", &[]), 1.0);
    assert_eq!(counted("imagegate_provider_up", &[]), 1.0);
    assert_eq!(counted("imagegate_holds_open", &[]), 0.0);
    assert!(counted("imagegate_database_connections", &["pool=\"read\""]) >= 1.0);
}

async fn only_the_operator_reads_the_metrics(kind: Database) {
    let house = House::new(kind).await;
    let nobody = house.gateway.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    let project = house.gateway.project(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(project.status(), StatusCode::FORBIDDEN);
    scrape(&house.gateway).await;
}

async fn the_metrics_need_no_key_at_the_operators_own_address(kind: Database) {
    let address = format!("127.0.0.1:{}", free_port());
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_ADMIN_BIND", &address)]).await;
    let open = client().get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    let list = client().get(format!("http://{address}/admin/v1/generations")).send().await.unwrap();
    assert_eq!(list.status(), StatusCode::UNAUTHORIZED, "only the metrics are open there");
    let elsewhere = house.gateway.request(Method::GET, "/metrics").bearer_auth(ADMIN_KEY).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
}

/// The names of metrics in a text, without what a sample adds to its family's name.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("imagegate_") || word.starts_with("http_server_"))
        .map(family_of)
        .collect()
}

fn family_of(name: &str) -> String {
    let suffixes = ["_bucket", "_sum", "_count", "_total"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()
}

async fn dashboard_alerts_and_documentation_name_exactly_what_there_is(kind: Database) {
    let house = busy_house(kind).await;
    let answer = house.gateway.admin(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let there: BTreeSet<String> = types.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let operations = read("docs/operations.md");
    let table =
        operations.split("<!-- metrics: begin -->").nth(1).unwrap().split("<!-- metrics: end -->").next().unwrap();
    assert_eq!(names_in(table), there, "the table in docs/operations.md and /metrics differ");
    for path in ["deploy/grafana/imagegate.json", "deploy/prometheus/alerts.yml"] {
        let named = names_in(&read(path));
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(!named.is_empty() && unknown.is_empty(), "{path} speaks of {unknown:?}");
    }
    let shown = names_in(&read("deploy/grafana/imagegate.json"));
    assert_eq!(shown, there, "the dashboard leaves something out");
    let alerts = read("deploy/prometheus/alerts.yml");
    assert_eq!(alerts.matches("- alert:").count(), alerts.matches("action: \"").count(), "every alert says what to do");
}
