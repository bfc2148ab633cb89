//! Who asks, for the audit log.

use actix_web::HttpRequest;
use actix_web::http::header::USER_AGENT;

use super::Services;
use crate::accounts::{Accounts, Author, Caller};

/// The accounts, with the caller as author of what it changes.
pub fn accounts_of(request: &HttpRequest, caller: &Caller, services: &Services) -> Accounts {
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ip = request.peer_addr().map(|address| address.ip().to_string());
    services.accounts.by(Author::Key { api_key_id: caller.api_key_id, ip, user_agent })
}
