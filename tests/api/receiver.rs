//! A customer's server that takes webhooks: answers as it is told, and keeps what came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

/// One call that came.
#[derive(Debug, Clone)]
pub struct Call {
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Default)]
struct Inbox {
    calls: Mutex<Vec<Call>>,
    statuses: Mutex<VecDeque<u16>>,
}

/// A running server. Stops when it is dropped.
pub struct Receiver {
    pub url: String,
    inbox: Arc<Inbox>,
    handle: actix_web::dev::ServerHandle,
}

impl Receiver {
    /// Answers with `statuses` one after the other, then with 204. A 3xx leads back to itself.
    pub fn new(statuses: &[u16]) -> Self {
        let inbox = Arc::new(Inbox { statuses: Mutex::new(statuses.iter().copied().collect()), ..Inbox::default() });
        let (kept, (found, address)) = (inbox.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    App::new().app_data(web::Data::from(kept.clone())).default_service(web::to(take))
                })
                .workers(1)
                .disable_signals()
                .bind("127.0.0.1:0")
                .unwrap();
                let address = server.addrs()[0];
                let server = server.run();
                found.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, handle) = address.recv().unwrap();
        Self { url: format!("http://{address}/hook?token=of-the-customer"), inbox, handle }
    }

    /// What came so far.
    pub fn calls(&self) -> Vec<Call> {
        self.inbox.calls.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

async fn take(request: HttpRequest, body: web::Bytes, inbox: web::Data<Inbox>) -> HttpResponse {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned())).collect();
    let call = Call { headers, body: String::from_utf8(body.to_vec()).unwrap() };
    inbox.calls.lock().unwrap().push(call);
    let status = inbox.statuses.lock().unwrap().pop_front().unwrap_or(204);
    let mut answer = HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap());
    if (300..400).contains(&status) {
        answer.insert_header(("location", "/elsewhere"));
    }
    answer.finish()
}
