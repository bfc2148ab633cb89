//! What was deleted of requests over the platform API: their payloads and the files of their output.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};
use uuid::Uuid;

use super::behaviour::Stage;
use super::misbehave::unless_spoiled;
use super::platform::{error, refuses};
use super::{Sandbox, answers};

/// The ids of requests and the names of files that were deleted.
#[derive(Debug, Default)]
pub struct Deleted(Mutex<HashSet<String>>);

impl Deleted {
    /// Whether that request or file was deleted.
    pub fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn add(&self, name: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// `DELETE /v1/models/requests/{id}/payloads`: the request's result and its pictures are gone; what was billed stays. What
/// fal answers for an unknown request, and for one that is deleted a second time, is not documented: here 404 and 200.
pub async fn delete(request: HttpRequest, id: web::Path<String>, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Platform, async {
        if let Some(refused) = refuses(&request) {
            return refused;
        }
        let Some(job) = id.parse::<Uuid>().ok().and_then(|id| sandbox.jobs.of_any(id)) else {
            return error(404, "not_found", "Request not found");
        };
        let host = sandbox.public_files.as_deref().unwrap_or(&job.base);
        let pictures = job.outcome().map(|plan| plan.pictures.clone()).unwrap_or_default();
        let results: Vec<Value> = pictures
            .iter()
            .map(|picture| {
                sandbox.deleted.add(picture.file_name());
                json!({"link": format!("{host}{}", picture.path()), "exception": null})
            })
            .collect();
        sandbox.deleted.add(job.id.to_string());
        answers::json(200, &json!({"cdn_delete_results": results}))
    })
    .await
}
