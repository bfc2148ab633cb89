//! Signing in and out, and the guard before every page: a session, and no request that another site has made.

use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, USER_AGENT};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use tracing::info;

use super::form::Form;
use super::inside::{Inside, Visit};
use super::page;
use crate::accounts::{Client, SESSION_LIFE, SignIn};
use crate::api::Services;
use crate::api::access::Open;
use crate::http::{AuthenticationFailed, Code, Problem, RequestContext, Verbatim};

const COOKIE: &str = "imagegate_console";
/// How long a wrong key waits for its answer, so that guessing is slow.
const WRONG_KEY_WAIT: Duration = Duration::from_millis(500);

/// What every page may load and do: only what comes from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Before every page: without a session to the sign-in; errors become pages.
pub async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let admitted = admit(&request).await;
    let response = match admitted {
        Ok(Some(visit)) => {
            request.extensions_mut().insert(visit);
            next.call(request).await?.map_into_boxed_body()
        }
        Ok(None) => {
            let to = sign_in_address(&request);
            request.into_response(redirect(&to))
        }
        Err(problem) => request.error_response(problem),
    };
    Ok(dress(response))
}

async fn admit(request: &ServiceRequest) -> Result<Option<Visit>, Problem> {
    let missing = || Problem::new(Code::InternalError, "the console is not set up");
    let inside = request.app_data::<Inside>().cloned().ok_or_else(missing)?;
    let context = request.extensions().get::<RequestContext>().copied().ok_or_else(missing)?;
    let Some(token) = request.cookie(COOKIE) else { return Ok(None) };
    let services = inside.services();
    let Some(caller) = services.accounts.session(token.value(), services.clock.now()).await? else { return Ok(None) };
    if request.peer_addr().is_some_and(|peer| !caller.may_come_from(peer.ip())) {
        return Err(Problem::new(Code::PermissionDenied, "this key may not be used from this address"));
    }
    if request.method() != Method::GET && !is_same_origin(request.headers()) {
        return Err(foreign());
    }
    Ok(Some(Visit::of(request, inside, caller, context)))
}

fn foreign() -> Problem {
    Problem::new(Code::PermissionDenied, "another site has sent this; open the console and do it there")
}

/// Whether the browser says that a page of ours has sent the request. A client that says nothing is no browser of ours.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some() && origin == text(HOST)
}

fn sign_in_address(request: &ServiceRequest) -> String {
    if request.method() != Method::GET || request.path() == "/console" {
        return "/console/sign-in".to_owned();
    }
    let wanted = request.uri().path_and_query().map_or("/console", |wanted| wanted.as_str());
    let wanted: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    format!("/console/sign-in?next={wanted}")
}

/// Puts on every answer what a browser must know, and makes a page of an error.
fn dress(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    response.request().extensions_mut().insert(Verbatim);
    let problem = response
        .response()
        .error()
        .map(|fault| fault.as_error::<Problem>().cloned().unwrap_or_else(|| Problem::from_status(response.status())));
    let mut response = match problem {
        Some(problem) => {
            let page = error_page(&problem, response.status());
            response.into_response(page)
        }
        None => response,
    };
    put_headers(response.headers_mut());
    response
}

fn put_headers(headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: &'static str| {
        let name = HeaderName::from_static(name);
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    put("content-security-policy", POLICY);
    put("x-content-type-options", "nosniff");
    put("referrer-policy", "same-origin");
    put("cross-origin-opener-policy", "same-origin");
    put("cache-control", "no-store");
}

fn error_page(problem: &Problem, status: StatusCode) -> HttpResponse {
    let content = html! {
        div .notice.bad role="alert" {
            h1 { "That did not work" }
            p { (problem.to_string()) }
            @if let Some(list) = problem.error()["data"].as_array() {
                ul { @for one in list { li { (one["message"].as_str().unwrap_or_default()) } } }
            }
        }
        p { a href="/console" { "To the overview" } }
    };
    let body = page::frame("Error", "", &content);
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(body.into_string())
}

/// Sends the browser on with `GET`.
pub fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header(("location", to)).finish()
}

/// The page that asks for a key.
pub async fn show_sign_in(_: Open, request: HttpRequest) -> HttpResponse {
    sign_in_page(&request, &next_of(request.query_string()), None, StatusCode::OK)
}

/// Where to go after signing in: only into the console.
fn next_of(query: &str) -> String {
    let next = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "next");
    let next = next.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let fits = next == "/console" || next.starts_with("/console/") || next.starts_with("/console?");
    if fits && !next.contains(['\\', '\r', '\n']) { next } else { "/console".to_owned() }
}

fn sign_in_page(request: &HttpRequest, next: &str, fault: Option<&str>, status: StatusCode) -> HttpResponse {
    let content: Markup = html! {
        h1 { "Sign in" }
        form .card.narrow method="post" action="/console/sign-in" {
            @if let Some(fault) = fault { p .notice.bad role="alert" { (fault) } }
            input type="hidden" name="next" value=(next);
            label for="key" { "Admin key" }
            input id="key" name="key" type="password" autocomplete="current-password" required autofocus
                aria-describedby="key-help";
            p #key-help .hint {
                "The first start of the gateway prints one, "
                code { "imagegate keys create --name NAME --kind admin" }
                " makes another. The session lasts twelve hours."
            }
            button type="submit" { "Sign in" }
        }
    };
    request.extensions_mut().insert(Verbatim);
    let body = page::bare("Sign in", &content);
    let mut response = HttpResponse::build(status).content_type("text/html; charset=utf-8").body(body.into_string());
    put_headers(response.headers_mut());
    response
}

/// Takes an admin key and begins a session.
pub async fn sign_in(
    _: Open,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    if !is_same_origin(request.headers()) {
        return Err(foreign());
    }
    let form = Form::read(&body);
    let next = next_of(&format!("next={}", form.encoded("next")));
    let address = request.peer_addr().map(|peer| peer.ip());
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let client = Client { address, user_agent };
    let token = match services.accounts.sign_in(form.text("key"), &client, services.clock.now()).await? {
        SignIn::Session(token) => token,
        SignIn::Refused => {
            let reason = "not a valid admin key at the console's sign-in".to_owned();
            request.extensions_mut().insert(AuthenticationFailed(reason));
            tokio::time::sleep(WRONG_KEY_WAIT).await;
            let error = "This is not an admin key, or it is no longer valid.";
            return Ok(sign_in_page(&request, &next, Some(error), StatusCode::UNAUTHORIZED));
        }
        SignIn::Paused(wait) => {
            let reason = "too many wrong keys at the console's sign-in".to_owned();
            request.extensions_mut().insert(AuthenticationFailed(reason));
            let seconds = wait.as_secs() + 1;
            let error = format!("Too many wrong keys from this address. Try again in {seconds} seconds.");
            let mut page = sign_in_page(&request, &next, Some(&error), StatusCode::TOO_MANY_REQUESTS);
            page.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(page);
        }
    };
    info!(client_address = address.map(tracing::field::display), "an operator signed in at the console");
    let mut response = redirect(&next);
    let lasts = i64::try_from(SESSION_LIFE.as_secs()).unwrap_or(i64::MAX);
    let cookie = cookie(&request, &services, token, lasts);
    response.add_cookie(&cookie).map_err(|_| Problem::new(Code::InternalError, "the session cannot be kept"))?;
    put_headers(response.headers_mut());
    Ok(response)
}

fn cookie(request: &HttpRequest, services: &Services, token: String, seconds: i64) -> Cookie<'static> {
    let public_is_safe = services.http.public_url.as_ref().is_some_and(|url| url.starts_with("https:"));
    Cookie::build(COOKIE, token)
        .path("/console")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(public_is_safe || request.connection_info().scheme() == "https")
        .max_age(actix_web::cookie::time::Duration::seconds(seconds))
        .finish()
}

/// Ends the session.
pub async fn sign_out(
    visit: Visit,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    if let Some(token) = request.cookie(COOKIE) {
        visit.accounts().sign_out(token.value(), visit.caller.api_key_id).await?;
    }
    let mut response = redirect("/console/sign-in");
    let gone = cookie(&request, &services, String::new(), 0);
    response.add_cookie(&gone).map_err(|_| Problem::new(Code::InternalError, "the session cannot be ended"))?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        for (query, expected) in [
            ("next=/console/usage?x=1", "/console/usage?x=1"),
            ("next=https://evil.example/console/", "/console"),
            ("next=//evil.example", "/console"),
            ("next=/console/%0d%0aset-cookie:x", "/console"),
            ("next=/consoles", "/console"),
            ("", "/console"),
        ] {
            assert_eq!(next_of(query), expected, "{query}");
        }
    }

    #[test]
    fn only_a_page_of_ours_may_send_a_form() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            headers
        };
        assert!(is_same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(is_same_origin(&headers(&[("host", "a:1"), ("origin", "http://a:1")])));
        for foreign in [
            headers(&[("sec-fetch-site", "cross-site"), ("host", "a"), ("origin", "http://a")]),
            headers(&[("sec-fetch-site", "same-site")]),
            headers(&[("host", "a:1"), ("origin", "http://b:1")]),
            headers(&[("host", "a:1"), ("origin", "null")]),
            headers(&[("host", "a:1")]),
        ] {
            assert!(!is_same_origin(&foreign), "{foreign:?}");
        }
    }
}
