//! Generations as a stream of lines, NDJSON or CSV: read page by page while they are sent, never all at once.

use std::fmt::Write;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::stream;
use serde_json::Value;

use crate::api::GenerationView;
use crate::ledger::{Books, GenerationFilter, LedgerError};

/// How many are read at a time.
const PAGE: u32 = 500;

/// The columns of the CSV form; those of the list's fields that are not nested.
const COLUMNS: &[&str] = &[
    "id",
    "state",
    "created_at",
    "settled_at",
    "project_id",
    "api_key_id",
    "user",
    "model",
    "endpoint",
    "fal_request_id",
    "num_images",
    "megapixels",
    "price_usd",
    "cost_usd",
    "cost_source",
    "error_message",
    "requested_model",
];

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON object on each line.
    Ndjson,
    /// A line of names, then values with commas (RFC 4180).
    Csv,
}

struct Export {
    books: Books,
    filter: GenerationFilter,
    form: Form,
    /// How many may still be sent; every one that matches if nobody set a limit.
    left: Option<u32>,
    begun: bool,
    done: bool,
}

/// The answer that streams the generations that match, newest first, at most `most` of them. What fails on the way breaks the connection off, so
/// that nobody takes a part for the whole.
pub fn stream_generations(books: Books, filter: GenerationFilter, form: Form, most: Option<u32>) -> HttpResponse {
    let export = Export { books, filter, form, left: most, begun: false, done: false };
    let chunks = stream::unfold(export, |mut export| async move {
        if export.done {
            return None;
        }
        let chunk = export.next_chunk().await.map_err(|fault| {
            tracing::error!(%fault, "an export of generations broke off");
            std::io::Error::other("the export broke off")
        });
        export.done |= chunk.is_err();
        Some((chunk, export))
    });
    let (kind, name) = match form {
        Form::Ndjson => ("application/x-ndjson", "generations.ndjson"),
        Form::Csv => ("text/csv; charset=utf-8", "generations.csv"),
    };
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header(("content-disposition", format!("attachment; filename=\"{name}\"")))
        .streaming(chunks)
}

impl Export {
    async fn next_chunk(&mut self) -> Result<Bytes, LedgerError> {
        self.filter.limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        let page = self.books.list_generations(&self.filter).await?;
        let sent = u32::try_from(page.items.len()).unwrap_or(u32::MAX);
        self.left = self.left.map(|left| left.saturating_sub(sent));
        self.done = !page.has_more || self.left == Some(0);
        self.filter.after = page.items.last().map(|record| record.id);
        let mut text = String::new();
        if !self.begun && self.form == Form::Csv {
            text.push_str(&COLUMNS.join(","));
            text.push_str("\r\n");
        }
        self.begun = true;
        for record in &page.items {
            let view = serde_json::to_value(GenerationView::for_operator(record)).unwrap_or_default();
            match self.form {
                Form::Ndjson => {
                    let _ = writeln!(text, "{view}");
                }
                Form::Csv => {
                    let cells: Vec<String> = COLUMNS.iter().map(|column| cell(&view, column)).collect();
                    text.push_str(&cells.join(","));
                    text.push_str("\r\n");
                }
            }
        }
        Ok(Bytes::from(text))
    }
}

/// A value as RFC 4180 wants it. A text that a spreadsheet would take for a formula gets an apostrophe in front.
fn cell(view: &Value, column: &str) -> String {
    let value = if column == "error_message" { &view["error"]["message"] } else { &view[column] };
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_a_formula() {
        let view = json!({"user": "a \"b\", c", "model": "flux/dev", "id": "=1+1", "num_images": 3, "error": {"message": "x\ny"}});
        assert_eq!(cell(&view, "user"), "\"a \"\"b\"\", c\"");
        assert_eq!(cell(&view, "model"), "flux/dev");
        assert_eq!(cell(&view, "id"), "'=1+1");
        assert_eq!(cell(&view, "num_images"), "3");
        assert_eq!(cell(&view, "settled_at"), "");
        assert_eq!(cell(&view, "error_message"), "\"x\ny\"");
    }
}
