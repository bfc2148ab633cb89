//! `GET /metrics`: what is counted and timed, and how things stand at this moment.

use actix_web::{HttpResponse, web};

use super::Services;
use super::access::{AdminCaller, Open, action};
use crate::http::{Code, Problem, ProblemBody};
use crate::meters::{CONTENT_TYPE, Snapshot};

/// What this process has counted and timed
///
/// In the text form of OpenMetrics, for Prometheus; `docs/operations.md` says what each means. Wants an admin key, or is
/// open where the operators' face has an address of its own.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "retrieveMetrics",
    tag = "health",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_metrics(
    _: AdminCaller<action::View>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    render(&services).await
}

/// The same without a key, for a listener that only operators and scrapers reach.
pub async fn scrape_metrics(_: Open, services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    render(&services).await
}

async fn render(services: &Services) -> Result<HttpResponse, Problem> {
    let mut snapshot = Snapshot::default();
    tell_of_the_process(services, &mut snapshot);
    tell_of_the_books(services, &mut snapshot).await;
    tell_of_the_providers(services, &mut snapshot);
    let text = services.meters.render(&snapshot);
    let text = text.map_err(|_| Problem::new(Code::InternalError, "the metrics cannot be written"))?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

fn tell_of_the_process(services: &Services, snapshot: &mut Snapshot) {
    let catalogue = services.gateway.catalogue();
    let info = [([catalogue.version().to_owned()], 1.0)];
    snapshot.gauges("imagegate_catalogue_info", "The version of the catalogue", ["version"], info);
    let offered = catalogue.models().filter(|model| model.is_offered()).count();
    snapshot.gauge("imagegate_catalogue_models", "Models on offer", number(offered));
    let build = [([env!("CARGO_PKG_VERSION").to_owned(), services.upstream.name().to_owned()], 1.0)];
    snapshot.gauges(
        "imagegate_build_info",
        "The program's version, and who makes the images",
        ["version", "upstream"],
        build,
    );
    let open = services.gateway.open_jobs();
    snapshot.gauge("imagegate_generations_open", "Generations that this process works on", number(open));
    let memory = services.media.memory();
    let help = "Memory that bodies and images under way take, of imagegate_memory_budget_bytes";
    snapshot.gauge("imagegate_memory_used_bytes", help, bytes(memory.used()));
    let help = "Memory that bodies and images under way may take";
    snapshot.gauge("imagegate_memory_budget_bytes", help, bytes(memory.limit()));
    let help = "By how much the machine's clock is behind the database's, which is used instead";
    snapshot.gauge("imagegate_clock_behind_seconds", help, services.gateway.clock_skew().seconds());
    let drifts = services.gateway.cost_drifts();
    snapshot.counter("imagegate_cost_drifts", "Generations that the provider billed otherwise than computed", drifts);
}

async fn tell_of_the_books(services: &Services, snapshot: &mut Snapshot) {
    let books = services.gateway.books();
    let pools = books.pools();
    let used = pools.iter().flat_map(|pool| {
        let row = |state: &str, count: u32| ([pool.name.to_owned(), state.to_owned()], f64::from(count));
        [row("used", pool.used), row("idle", pool.idle)]
    });
    let help = "Open connections to the database, by pool and state";
    snapshot.gauges("imagegate_database_connections", help, ["pool", "state"], used);
    let most = pools.iter().map(|pool| ([pool.name.to_owned()], f64::from(pool.most)));
    let help = "Most connections that a pool may have";
    snapshot.gauges("imagegate_database_connections_max", help, ["pool"], most);
    let kept = books.kept_on_disk();
    snapshot.gauge("imagegate_journal_writes", "Writes kept on disk because the database is away", number(kept));
    let ages = if books.is_down() { None } else { books.hold_ages(services.clock.now()).await.ok() };
    let help = "Whether the books can be written (1) or requests are refused (0)";
    snapshot.gauge("imagegate_books_available", help, if ages.is_some() { 1.0 } else { 0.0 });
    let Some(ages) = ages else { return };
    let counts = [
        ("under_1m", ages.under_a_minute),
        ("1m_to_5m", ages.under_five_minutes),
        ("5m_to_1h", ages.under_an_hour),
        ("over_1h", ages.older),
    ];
    let counts = counts.map(|(age, count)| ([age.to_owned()], number(count)));
    snapshot.gauges("imagegate_holds_open", "Open holds of all replicas, by age", ["age"], counts);
    let help = "Age of the oldest open hold";
    snapshot.gauge("imagegate_holds_oldest_age_seconds", help, ages.oldest.as_secs_f64());
    if let Ok(disabled) = services.webhooks.disabled_endpoints().await {
        let help = "Webhook endpoints of all projects that fail again and again and are disabled";
        snapshot.gauge("imagegate_webhook_endpoints_disabled", help, number(disabled));
    }
}

fn tell_of_the_providers(services: &Services, snapshot: &mut Snapshot) {
    let providers: Vec<_> = services.gateway.health().collect();
    let healthy =
        providers.iter().map(|(name, health)| ([(*name).to_owned()], if health.is_degraded() { 0.0 } else { 1.0 }));
    snapshot.gauges("imagegate_provider_up", "Whether a provider is well (1) or degraded (0)", ["provider"], healthy);
    let resting = providers.iter().map(|(name, health)| ([(*name).to_owned()], number(health.open_breakers.len())));
    let help = "Endpoints that failed again and again and are left alone for a while";
    snapshot.gauges("imagegate_provider_resting_endpoints", help, ["provider"], resting);
    let keys = providers.iter().flat_map(|(name, health)| {
        health.keys.iter().map(|key| ([(*name).to_owned(), key.label.clone()], number(key.open)))
    });
    let help = "Requests that each of our keys has open at the provider";
    snapshot.gauges("imagegate_provider_key_open_requests", help, ["provider", "key"], keys);
}

/// As Prometheus counts; exact far beyond what there will ever be of anything here.
#[expect(clippy::cast_precision_loss, reason = "no machine has so much memory")]
fn bytes(count: u64) -> f64 {
    count as f64
}

fn number<T: TryInto<u32>>(count: T) -> f64 {
    count.try_into().map_or(f64::INFINITY, f64::from)
}
