//! Traces: one for each request, with a span for each step, continued from the caller and carried on to fal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::receiver::Receiver;
use crate::support::{
    ADMIN_KEY, Database, House, PROJECT_KEY, Start, TestDatabase, eventually, on_both_databases, t_rex,
};

on_both_databases!(a_request_is_one_trace_with_a_span_for_each_step, the_trace_goes_on_to_the_provider);

/// The caller's context, as W3C writes it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector of traces. Stops with the test's process.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn new() -> Self {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let (kept, (found, address)) = (spans.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(web::Data::from(kept.clone()))
                        .app_data(web::PayloadConfig::new(16 * 1024 * 1024))
                        .route("/v1/traces", web::post().to(take))
                });
                let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
                found.send(server.addrs()[0]).unwrap();
                server.run().await.unwrap();
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), spans }
    }

    fn of_trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| hex::encode(&span.trace_id) == trace).cloned().collect()
    }
}

async fn take(body: web::Bytes, kept: web::Data<Mutex<Vec<Span>>>) -> HttpResponse {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    kept.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
    HttpResponse::Ok().finish()
}

async fn a_request_is_one_trace_with_a_span_for_each_step(kind: Database) {
    let collector = Collector::new();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
    let House { gateway, fal: _fal, database: _database } = House::with(kind, Duration::ZERO, &settings).await;
    let mut wish = t_rex();
    wish["prompt"] = json!("a-prompt-that-nobody-may-read");
    let request = gateway.generate(&wish).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(gateway.request(Method::GET, "/healthz").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.stop().await, 0, "what is left is sent before the process ends");

    let spans = eventually(Duration::from_secs(10), || async {
        let spans = collector.of_trace(TRACE);
        (spans.len() >= 7).then_some(spans)
    })
    .await;
    let by_name: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.name.as_str(), span)).collect();
    let root = by_name.get("POST /v1/images/generations").unwrap_or_else(|| panic!("only {:?}", by_name.keys()));
    assert_eq!(hex::encode(&root.parent_span_id), PARENT, "the caller's span is the parent");
    for name in ["accept", "generation", "reserve", "submit", "await", "settle"] {
        let span = by_name.get(name).unwrap_or_else(|| panic!("there is no `{name}` among {:?}", by_name.keys()));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
        let parent = if matches!(name, "accept" | "generation") { root } else { by_name["generation"] };
        assert_eq!(span.parent_span_id, parent.span_id, "`{name}` belongs to `{}`", parent.name);
    }
    let attributes = format!("{:?}", root.attributes);
    for word in ["http.request.method", "url.path", "http.response.status_code", "http.route"] {
        assert!(attributes.contains(word), "{word} is missing: {attributes}");
    }
    let everything = format!("{:?}", collector.spans.lock().unwrap());
    for secret in [PROJECT_KEY, ADMIN_KEY, "a-prompt-that-nobody-may-read", "test:test"] {
        assert!(!everything.contains(secret), "`{secret}` is in a trace");
    }
}

async fn the_trace_goes_on_to_the_provider(kind: Database) {
    let collector = Collector::new();
    let database = TestDatabase::new(kind).await;
    let provider = Receiver::new(&[422, 422]);
    let queue = provider.url.split("/hook").next().unwrap().to_owned();
    let start = Start::new(&database.url, &queue).with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let gateway = start.run().await;
    let request = gateway.generate(&t_rex()).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert!(!request.send().await.unwrap().status().is_success());
    let calls = provider.calls();
    let traceparent = &calls[0].headers["traceparent"];
    assert!(traceparent.starts_with(&format!("00-{TRACE}-")) && !traceparent.contains(PARENT), "{traceparent}");
}
