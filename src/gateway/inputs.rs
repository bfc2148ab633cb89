//! Input images that a request carries in itself: they must be images, of a size that can be handled, before anything is
//! booked. Links are the provider's to fetch.

use bytes::Bytes;

use super::Gateway;
use super::picture::{BadPicture, MOST_BYTES, MOST_METADATA, MOST_PIXELS, inspect_bytes, inspect_uri};
use crate::catalogue::{Code, Kind, Order, PathPart, Problem, Rejection, Value};
use crate::domain::ProjectId;

pub use super::picture::type_of as picture_type;

impl Gateway {
    /// The MIME type of an input image that comes by itself in the form field `name`, by its content.
    pub async fn inspect_file(&self, project: ProjectId, name: &str, bytes: Bytes) -> Result<&'static str, Rejection> {
        let place = [PathPart::Key(name.to_owned())];
        self.inspecting(project, move || inspect_bytes(&bytes).map_err(|bad| Rejection::Invalid(vec![bad.at(&place)])))
            .await
    }

    /// Does work on images, which may take a while, away from the threads that answer requests, and not more of it at once than there
    /// are processors. Projects take turns.
    pub async fn inspecting<T: Send + 'static>(
        &self,
        project: ProjectId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let _permit = self.inspections.acquire(project).await;
        match self.runtime.spawn_blocking(work).await {
            Ok(done) => done,
            // It is not cancelled, so it has panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn may_hold_images(kind: &Kind) -> bool {
    matches!(kind, Kind::Image | Kind::List(_) | Kind::Object(_))
}

pub(super) fn has_embedded_images(order: &Order) -> bool {
    order.parameters().any(|(parameter, value)| may_hold_images(&parameter.kind) && holds_data(value))
}

fn holds_data(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.starts_with("data:"),
        Value::List(items) => items.iter().any(holds_data),
        Value::Object(fields) => fields.iter().any(|(_, field)| holds_data(field)),
        _ => false,
    }
}

/// Checks every embedded image of an order, and reports all problems at once.
pub(super) fn inspect(order: &Order) -> Result<(), Rejection> {
    let mut problems = Vec::new();
    for (parameter, value) in order.parameters().filter(|(parameter, _)| may_hold_images(&parameter.kind)) {
        let mut path = vec![PathPart::Key(parameter.name.as_ref().to_owned())];
        check_value(&parameter.kind, value, &mut path, &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(Rejection::Invalid(problems)) }
}

fn check_value(kind: &Kind, value: &Value, path: &mut Vec<PathPart>, problems: &mut Vec<Problem>) {
    match (kind, value) {
        (Kind::Image, Value::Text(uri)) if uri.starts_with("data:") => {
            if let Err(bad) = inspect_uri(uri) {
                problems.push(bad.at(path));
            }
        }
        (Kind::List(rule), Value::List(items)) => {
            for (at, item) in items.iter().enumerate() {
                path.push(PathPart::Index(at));
                check_value(&rule.items, item, path, problems);
                path.pop();
            }
        }
        (Kind::Object(rule), Value::Object(values)) => {
            for (name, value) in values {
                let Some(field) = rule.fields.iter().find(|field| field.name == *name) else { continue };
                path.push(PathPart::Key(name.as_ref().to_owned()));
                check_value(&field.kind, value, path, problems);
                path.pop();
            }
        }
        _ => {}
    }
}

impl BadPicture {
    fn at(&self, path: &[PathPart]) -> Problem {
        let problem = |code, message| Problem::new(code, path.to_vec(), message);
        let place = problem(Code::Custom, String::new()).dotted_path();
        let too_big = |what: &str, most: u64| {
            let message = format!("`{place}` is an image of {what}; at most {most} are accepted");
            Problem { maximum: Some(most.into()), inclusive: Some(true), ..problem(Code::TooBig, message) }
        };
        match self {
            Self::NotBase64 => problem(Code::InvalidString, format!("`{place}` is not valid base64")),
            Self::NotAnImage => problem(
                Code::Custom,
                format!("`{place}` is not an image that can be read; PNG, JPEG, WebP, GIF and AVIF are accepted"),
            ),
            Self::TooManyBytes(bytes) => too_big(&format!("{bytes} bytes"), MOST_BYTES as u64),
            Self::TooManyPixels(pixels) => too_big(&format!("{pixels} pixels"), MOST_PIXELS),
            Self::TooMuchMetadata => {
                too_big("too many bytes of colour profile and texts, once they are inflated", MOST_METADATA)
            }
        }
    }
}
