//! A request's trace: the context that it came with, the steps on its way, and the context that it goes on with.
//!
//! Steps are `tracing` spans at level `info`; they cost nothing unless somebody collects them (`telemetry.rs`). A span
//! never holds a key, a prompt, a query or an image.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The headers of W3C's trace context.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// The headers of the trace that a request came with.
struct Incoming<'h>([Option<&'h str>; 2]);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        HEADERS.iter().zip(self.0).find(|(name, _)| **name == key)?.1
    }

    fn keys(&self) -> Vec<&str> {
        HEADERS.to_vec()
    }
}

/// Headers that a request of ours goes out with.
#[derive(Default)]
struct Outgoing(Vec<(String, String)>);

impl Injector for Outgoing {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

/// Makes a span part of the trace that a request came with, if it came with one.
pub fn continue_from<'h>(span: &Span, header: impl Fn(&str) -> Option<&'h str>) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(HEADERS.map(header)));
    if context.span().span_context().is_valid() {
        // Fails only for a span that nobody collects.
        let _ = span.set_parent(context);
    }
}

/// The headers that carry the present span's trace on; none where nobody collects it.
#[must_use]
pub fn headers_out() -> Vec<(String, String)> {
    let span = Span::current();
    if span.is_disabled() {
        return Vec::new();
    }
    let mut outgoing = Outgoing::default();
    TraceContextPropagator::new().inject_context(&span.context(), &mut outgoing);
    outgoing.0.retain(|(_, value)| !value.is_empty());
    outgoing.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_collects_nothing_is_carried_on() {
        let span = tracing::info_span!("request");
        continue_from(&span, |_| Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(span.in_scope(headers_out).is_empty());
    }
}
