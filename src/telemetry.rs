//! The log and the traces: one subscriber for the process. What is written never holds a key, a prompt or an image.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::LogSettings;

/// Longest wait for the collector when the process ends.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `IMAGEGATE_LOG` cannot be read.
    #[error("IMAGEGATE_LOG=`{0}` is not allowed: a filter such as `info` or `imagegate=debug,warn`")]
    Filter(String),
    /// The exporter of traces does not start.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// Another subscriber was there first.
    #[error("the log cannot start: {0}")]
    Start(#[from] TryInitError),
}

/// What must be ended with the process.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is left of the traces; waits for the collector, though not long.
    pub fn end(self) {
        if let Some(Err(fault)) = self.traces.map(|traces| traces.shutdown_with_timeout(LAST_WAIT)) {
            tracing::warn!(%fault, "the last traces could not be sent");
        }
    }
}

/// Starts the log; it goes to standard error, so that standard output stays free for what a command prints. Traces go to
/// the collector of the settings, or nowhere.
pub fn start(settings: &LogSettings) -> Result<Telemetry, TelemetryError> {
    // How many threads listen where is not worth two lines at every start; the operator's filter may say otherwise.
    let filter = EnvFilter::try_new(format!("actix_server=warn,actix_http::h1::dispatcher=off,{}", settings.filter))
        .map_err(|_| TelemetryError::Filter(settings.filter.clone()))?;
    let traces = settings.otlp_endpoint.as_deref().map(collector).transpose()?;
    // Steps of ours only: what libraries do is not part of a request's story.
    let steps = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer("imagegate"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("imagegate")))
            .boxed()
    });
    subscriber(steps, lines(settings.json, filter)).try_init()?;
    Ok(Telemetry { traces })
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// A list, since an absent `Option` of a layer would want every span: five for each request that nobody collects.
fn subscriber(steps: Option<BoxedLayer>, lines: BoxedLayer) -> impl Subscriber + SubscriberInitExt {
    tracing_subscriber::registry().with(steps.into_iter().chain([lines]).collect::<Vec<_>>())
}

/// The lines of the log, without the steps that they belong to: `request_id` and `generation` tell that.
fn lines(json: bool, filter: EnvFilter) -> BoxedLayer {
    // One filter: of two around each other, either lets a span be made.
    let filter = filter.and(filter_fn(|metadata| !metadata.is_span()));
    if json {
        return fmt::layer()
            .json()
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed();
    }
    let colours = std::io::stderr().is_terminal();
    fmt::layer().with_target(false).with_ansi(colours).with_writer(std::io::stderr).with_filter(filter).boxed()
}

/// Sends traces in batches by OTLP over HTTP, protobuf, from a thread of its own.
fn collector(endpoint: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/traces")).build()?;
    let resource = Resource::builder()
        .with_service_name("imagegate")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_there_are_lines_and_no_spans() {
        tracing::subscriber::with_default(subscriber(None, lines(true, EnvFilter::new("info"))), || {
            assert!(tracing::info_span!("step").is_disabled());
            assert!(tracing::enabled!(tracing::Level::INFO));
        });
    }
}
