//! The stand-in's own routes, below `/__sandbox/`: what it has counted, and how it shall misbehave. fal has nothing like
//! them; they want no key.

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use serde_json::json;

use super::{Sandbox, answers, behaviour};

/// Most requests told.
const MOST_REQUESTS: usize = 10_000;

/// `GET /__sandbox/state`: the counts, pictures made (read or not), and the newest requests with id and endpoint.
pub async fn get_state(sandbox: web::Data<Sandbox>) -> HttpResponse {
    let counts = sandbox.tally.counts().clone();
    let mut state = json!(counts);
    state["made_images"] = json!(sandbox.jobs.pictures_made(sandbox.clock.now()));
    let newest = sandbox.jobs.newest(MOST_REQUESTS);
    let requests = newest.iter().map(|job| json!({"id": job.id, "endpoint": job.endpoint}));
    state["requests"] = requests.collect();
    answers::json(200, &state)
}

/// `POST /__sandbox/reset`: forgets requests, counts, uploads and rules.
pub async fn reset(sandbox: web::Data<Sandbox>) -> HttpResponse {
    sandbox.jobs.clear();
    sandbox.tally.clear();
    sandbox.uploads.clear();
    sandbox.deleted.clear();
    sandbox.rules.clear();
    HttpResponse::NoContent().finish()
}

/// `GET /__sandbox/behaviour`: the rules that hold, with the times that are left.
pub async fn get_behaviour(sandbox: web::Data<Sandbox>) -> HttpResponse {
    answers::json(200, &json!({"rules": sandbox.rules.all()}))
}

/// `POST /__sandbox/behaviour`: adds a rule, or a list of rules, behind those that hold.
pub async fn add_behaviour(body: Bytes, sandbox: web::Data<Sandbox>) -> HttpResponse {
    let rules = match behaviour::read(&body) {
        Ok(rules) => rules,
        Err(error) => return answers::bad_behaviour(&error.to_string()),
    };
    if sandbox.rules.add(rules) {
        get_behaviour(sandbox).await
    } else {
        answers::bad_behaviour("there are too many rules")
    }
}

/// `DELETE /__sandbox/behaviour`: behaves again.
pub async fn clear_behaviour(sandbox: web::Data<Sandbox>) -> HttpResponse {
    sandbox.rules.clear();
    HttpResponse::NoContent().finish()
}
