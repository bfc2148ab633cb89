//! The stand-in's own routes, below `/__sandbox/`: what it has counted. fal has nothing like them.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::Sandbox;

/// Most requests told.
const MOST_REQUESTS: usize = 10_000;

/// `GET /__sandbox/state`: the counts, pictures made (read or not), and the newest requests with id and
/// endpoint.
pub async fn get_state(sandbox: web::Data<Sandbox>) -> HttpResponse {
    let counts = sandbox.tally.counts().clone();
    let mut state = json!(counts);
    state["made_images"] = json!(sandbox.jobs.pictures_made(sandbox.clock.now()));
    let newest = sandbox.jobs.newest(MOST_REQUESTS);
    let requests = newest.iter().map(|job| json!({"id": job.id, "endpoint": job.endpoint}));
    state["requests"] = requests.collect();
    HttpResponse::Ok().json(state)
}

/// `POST /__sandbox/reset`: forgets requests and counts.
pub async fn reset(sandbox: web::Data<Sandbox>) -> HttpResponse {
    sandbox.jobs.clear();
    sandbox.tally.clear();
    HttpResponse::NoContent().finish()
}
