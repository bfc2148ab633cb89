//! What is counted and timed, all of it: every instrument is named here, and `docs/operations.md` tells what each means.
//!
//! Names follow Prometheus (base units, `_total` on counters) and, where OpenTelemetry has a name, OpenTelemetry. No
//! label can grow without bound: models and endpoints are the catalogue's, routes are the program's, all else is a word
//! of the program.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use prometheus_client::metrics::gauge::Gauge;

/// From a quarter of a millisecond to a minute: our own work and single calls.
const SHORT: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From a twentieth of a second to ten minutes: waiting for images.
const LONG: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Calls in one transaction.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

type Timers<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "OpenTelemetry's names")]
struct RouteLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    model: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    endpoint: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// A request for images as it is counted.
#[derive(Debug, Clone)]
pub struct Served {
    /// The model's id in the catalogue.
    pub model: String,
    /// How long it waited for the provider; `None` where the answer did not wait for the end (background, streams).
    pub provider_time: Option<Duration>,
}

/// How a generation ended, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The model that was asked last.
    pub model: &'a str,
    /// Its final state.
    pub state: &'static str,
    /// Images delivered.
    pub images: u32,
    /// How long it waited at the provider before it was seen to run, if it was.
    pub queued: Option<Duration>,
}

/// Every instrument of the process.
pub struct Meters {
    registry: Registry,
    routes: Timers<RouteLabels>,
    requests: Family<RequestLabels, Counter>,
    added: Timers<ModelLabels>,
    generations: Family<EndLabels, Counter>,
    images: Family<ModelLabels, Counter>,
    queued: Timers<ModelLabels>,
    provider_calls: Family<ProviderLabels, Counter>,
    provider_times: Timers<OperationLabels>,
    books_calls: Timers<OperationLabels>,
    commit_sizes: Histogram,
    commit_times: Histogram,
    webhook_attempts: Family<OutcomeLabels, Counter>,
    webhook_times: Histogram,
}

fn short() -> Histogram {
    Histogram::new(SHORT.iter().copied())
}

fn long() -> Histogram {
    Histogram::new(LONG.iter().copied())
}

impl Default for Meters {
    fn default() -> Self {
        let mut meters = Self {
            registry: Registry::default(),
            routes: Family::new_with_constructor(short),
            requests: Family::default(),
            added: Family::new_with_constructor(short),
            generations: Family::default(),
            images: Family::default(),
            queued: Family::new_with_constructor(long),
            provider_calls: Family::default(),
            provider_times: Family::new_with_constructor(short),
            books_calls: Family::new_with_constructor(short),
            commit_sizes: Histogram::new(SIZES.iter().copied()),
            commit_times: short(),
            webhook_attempts: Family::default(),
            webhook_times: short(),
        };
        meters.register();
        meters
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    fn register(&mut self) {
        let all = &mut self.registry;
        let seconds = || Unit::Seconds;
        let timed = "http_server_request_duration";
        all.register_with_unit(timed, "Time to answer, by route and status", seconds(), self.routes.clone());
        let requests = self.requests.clone();
        all.register("imagegate_image_requests", "Requests for images, by model and HTTP status", requests);
        let help = "Time of a request that was not spent waiting for the provider";
        all.register_with_unit("imagegate_added_latency", help, seconds(), self.added.clone());
        let generations = self.generations.clone();
        all.register("imagegate_generations", "Generations that ended, by model and final state", generations);
        all.register("imagegate_images_delivered", "Images delivered, by model", self.images.clone());
        let help = "Time from the submit until the provider was seen to run it";
        all.register_with_unit("imagegate_provider_queue_wait", help, seconds(), self.queued.clone());
        let help = "Calls to the provider, by endpoint, operation and outcome";
        all.register("imagegate_provider_calls", help, self.provider_calls.clone());
        let help = "Time of one call to the provider";
        all.register_with_unit("imagegate_provider_call_duration", help, seconds(), self.provider_times.clone());
        let help = "Time of one write to the books, waiting for its turn included";
        all.register_with_unit("imagegate_books_call_duration", help, seconds(), self.books_calls.clone());
        let help = "Writes that were committed together";
        all.register("imagegate_books_commit_size", help, self.commit_sizes.clone());
        let help = "Time from taking a batch of writes until the next one could be taken";
        all.register_with_unit("imagegate_books_commit_duration", help, seconds(), self.commit_times.clone());
        let attempts = self.webhook_attempts.clone();
        all.register("imagegate_webhook_attempts", "Tries to call customers' webhooks, by outcome", attempts);
        let help = "Time of one try to call a webhook";
        all.register_with_unit("imagegate_webhook_duration", help, seconds(), self.webhook_times.clone());
    }

    /// A request was answered. `route` is the pattern that it matched, `served` is known of requests for images.
    pub fn answered(&self, method: &str, route: Option<&str>, status: u16, took: Duration, served: Option<&Served>) {
        let labels = RouteLabels {
            http_request_method: known_method(method),
            http_route: route.unwrap_or("unmatched").to_owned(),
            http_response_status_code: status,
        };
        self.routes.get_or_create(&labels).observe(took.as_secs_f64());
        let Some(served) = served else { return };
        self.requests.get_or_create(&RequestLabels { model: served.model.clone(), status }).inc();
        if let Some(waited) = served.provider_time {
            let labels = ModelLabels { model: served.model.clone() };
            self.added.get_or_create(&labels).observe(took.saturating_sub(waited).as_secs_f64());
        }
    }

    /// A generation has ended.
    pub fn ended(&self, ended: Ended<'_>) {
        let labels = EndLabels { model: ended.model.to_owned(), state: ended.state };
        self.generations.get_or_create(&labels).inc();
        let model = ModelLabels { model: ended.model.to_owned() };
        self.images.get_or_create(&model).inc_by(u64::from(ended.images));
        if let Some(queued) = ended.queued {
            self.queued.get_or_create(&model).observe(queued.as_secs_f64());
        }
    }

    /// The provider was called.
    pub fn provider_called(&self, endpoint: &str, operation: &'static str, outcome: &'static str, took: Duration) {
        let labels = ProviderLabels { endpoint: endpoint.to_owned(), operation, outcome };
        self.provider_calls.get_or_create(&labels).inc();
        self.provider_times.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// A write to the books; it is timed until the stopwatch is dropped.
    #[must_use]
    pub fn books_call(&self, operation: &'static str) -> Stopwatch {
        Stopwatch::on(self.books_calls.get_or_create_owned(&OperationLabels { operation }))
    }

    /// A batch of writes was taken; it is timed until the stopwatch is dropped.
    #[must_use]
    pub fn commit(&self, size: usize) -> Stopwatch {
        self.commit_sizes.observe(u32::try_from(size).map_or(f64::INFINITY, f64::from));
        Stopwatch::on(self.commit_times.clone())
    }

    /// A customer's webhook was called.
    pub fn webhook_called(&self, outcome: &'static str, took: Duration) {
        self.webhook_attempts.get_or_create(&OutcomeLabels { outcome }).inc();
        self.webhook_times.observe(took.as_secs_f64());
    }

    /// Everything in the text form of OpenMetrics, with what `snapshot` tells of this moment.
    pub fn render(&self, snapshot: &Snapshot) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &snapshot.0)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// The content type of what [`Meters::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Values that are looked up when somebody asks, rather than kept.
#[derive(Debug, Default)]
pub struct Snapshot(Registry);

impl Snapshot {
    /// A value.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// A count that somebody else keeps; it only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    /// Values told apart by labels; the words of the labels are the program's or the catalogue's.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        values: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let family = Family::<Vec<(&'static str, String)>, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for (words, value) in values {
            family.get_or_create(&labels.into_iter().zip(words).collect()).set(value);
        }
        self.0.register(name, help, family);
    }
}

/// Times something until it is dropped.
#[derive(Debug)]
pub struct Stopwatch {
    started: Instant,
    histogram: Histogram,
}

impl Stopwatch {
    fn on(histogram: Histogram) -> Self {
        Self { started: Instant::now(), histogram }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.histogram.observe(self.started.elapsed().as_secs_f64());
    }
}

/// `OpenTelemetry`'s rule: what is no known method is `_OTHER`.
fn known_method(method: &str) -> &'static str {
    const KNOWN: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.iter().find(|known| **known == method).copied().unwrap_or("_OTHER")
}

/// Shared by every room that has something to count.
pub type SharedMeters = Arc<Meters>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_method_or_address_makes_no_series_of_its_own() {
        let meters = Meters::default();
        for n in 0..50 {
            meters.answered(&format!("M{n}"), None, 404, Duration::ZERO, None);
        }
        let text = meters.render(&Snapshot::default()).unwrap();
        let series = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count")).count();
        assert_eq!(series, 1, "{text}");
        assert!(text.contains(r#"http_request_method="_OTHER",http_route="unmatched""#), "{text}");
    }

    #[test]
    fn what_was_spent_waiting_for_the_provider_is_not_ours() {
        let meters = Meters::default();
        let served = Served { model: "m".into(), provider_time: Some(Duration::from_secs(3)) };
        meters.answered("POST", Some("/x"), 201, Duration::from_millis(3_250), Some(&served));
        let text = meters.render(&Snapshot::default()).unwrap();
        assert!(text.contains(r#"imagegate_added_latency_seconds_sum{model="m"} 0.25"#), "{text}");
    }

    #[test]
    fn a_snapshot_stands_beside_what_is_kept() {
        let mut snapshot = Snapshot::default();
        snapshot.gauge("a", "One", 1.0);
        snapshot.gauges("b", "Two", ["kind"], [(["x".to_owned()], 2.0)]);
        snapshot.counter("c", "Three", 3);
        let text = Meters::default().render(&snapshot).unwrap();
        for line in ["a 1.0", r#"b{kind="x"} 2.0"#, "c_total 3"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
