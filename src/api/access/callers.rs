//! The parameters by which handlers state who may call them.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, web};

use super::{Access, StatedCaller};
use crate::accounts::{AdminAction, AdmitError, Caller, CallerKind, Scope};
use crate::api::Services;
use crate::api::errors::key_problem;
use crate::http::{AuthenticationFailed, BodyMemory, Code, LoggedCaller, Problem};

/// Everybody may call.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl FromRequest for Open {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(_: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

impl StatedCaller for Open {
    const ACCESS: Access = Access::Open;
}

/// A set of scopes of which a project key needs one; the types are in [`scope`].
pub trait NeededScopes: 'static {
    /// The scopes.
    const SCOPES: &'static [Scope];
}

/// An action that the role of an admin key must permit; the types are in [`action`].
pub trait NeededAction: 'static {
    /// The action.
    const ACTION: crate::accounts::AdminAction;
}

macro_rules! needed {
    ($(#[$doc:meta] $name:ident: $trait:ident, $constant:ident: $type:ty = $value:expr;)*) => {
        $(
            #[$doc]
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl super::$trait for $name {
                const $constant: $type = $value;
            }
        )*
    };
}

/// What a project key needs, as a parameter of [`ProjectCaller`].
pub mod scope {
    use crate::accounts::Scope;

    needed! {
        /// `images:generate`.
        Generate: NeededScopes, SCOPES: &'static [Scope] = &[Scope::ImagesGenerate];
        /// `images:read`, or `images:generate` for what the key itself made.
        ReadImages: NeededScopes, SCOPES: &'static [Scope] = &[Scope::ImagesRead, Scope::ImagesGenerate];
        /// `files`.
        Files: NeededScopes, SCOPES: &'static [Scope] = &[Scope::Files];
        /// `webhooks`.
        Webhooks: NeededScopes, SCOPES: &'static [Scope] = &[Scope::Webhooks];
        /// `usage:read`.
        ReadUsage: NeededScopes, SCOPES: &'static [Scope] = &[Scope::UsageRead];
        /// `billing:read`.
        ReadBilling: NeededScopes, SCOPES: &'static [Scope] = &[Scope::BillingRead];
    }
}

/// What the role of an admin key must permit, as a parameter of [`AdminCaller`].
pub mod action {
    use super::AdminAction;

    needed! {
        /// Reads.
        View: NeededAction, ACTION: AdminAction = AdminAction::View;
        /// Changes projects, keys, limits, policies and files.
        Operate: NeededAction, ACTION: AdminAction = AdminAction::Operate;
        /// Moves money or changes what may be spent.
        Bill: NeededAction, ACTION: AdminAction = AdminAction::Bill;
        /// Makes and ends admin keys; changes settings of the whole gateway.
        Own: NeededAction, ACTION: AdminAction = AdminAction::Own;
    }
}

/// A project key with one of the scopes, or an admin key that is bound to a project.
#[derive(Debug, Clone)]
pub struct ProjectCaller<S>(Caller, PhantomData<S>);

/// Any project key, whatever its scopes.
#[derive(Debug, Clone)]
pub struct AnyProjectCaller(Caller);

/// An admin key whose role permits the action.
#[derive(Debug, Clone)]
pub struct AdminCaller<A>(Caller, PhantomData<A>);

impl<S> ProjectCaller<S> {
    /// The caller itself.
    #[must_use]
    pub fn into_inner(self) -> Caller {
        self.0
    }
}

impl<S> Deref for ProjectCaller<S> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Deref for AnyProjectCaller {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<A> AdminCaller<A> {
    /// Errors with 403 where the role does not permit to change this field as well.
    pub fn may_change(&self, needed: AdminAction, field: &str) -> Result<(), Problem> {
        if self.role.may(needed) {
            return Ok(());
        }
        let message = format!("the role `{}` of this admin key does not permit to change `{field}`", self.role);
        Err(Problem::new(Code::PermissionDenied, message).param(field))
    }
}

impl<A> Deref for AdminCaller<A> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S: NeededScopes> FromRequest for ProjectCaller<S> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(
            authenticate(request).and_then(|caller| permit(caller, S::SCOPES)).map(|caller| Self(caller, PhantomData)),
        )
    }
}

impl<S: NeededScopes> StatedCaller for ProjectCaller<S> {
    const ACCESS: Access = Access::Project(S::SCOPES);
}

impl FromRequest for AnyProjectCaller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(request).and_then(|caller| permit(caller, &[])).map(Self))
    }
}

impl StatedCaller for AnyProjectCaller {
    const ACCESS: Access = Access::Project(&[]);
}

impl<A: NeededAction> FromRequest for AdminCaller<A> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = authenticate(request).and_then(|caller| {
            let caller = as_admin(caller)?;
            if caller.role.may(A::ACTION) {
                return Ok(caller);
            }
            let message = format!("the role `{}` of this admin key does not permit this", caller.role);
            Err(Problem::new(Code::PermissionDenied, message))
        });
        ready(caller.map(|caller| Self(caller, PhantomData)))
    }
}

impl<A: NeededAction> StatedCaller for AdminCaller<A> {
    const ACCESS: Access = Access::Admin(A::ACTION);
}

/// Put into the data of an application that only operators reach.
#[derive(Debug, Clone, Copy)]
pub struct OperatorsListener;

/// Whether an open route is called by an operator: with an admin key, or on the listener that only operators reach.
pub fn is_operator(request: &HttpRequest) -> bool {
    request.app_data::<OperatorsListener>().is_some()
        || request.headers().contains_key(AUTHORIZATION) && authenticate(request).and_then(as_admin).is_ok()
}

/// The second wall around everything for operators: no request without an admin key gets as far as a handler.
pub async fn require_admin<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(problem) = authenticate(request.request()).and_then(as_admin) {
        return Ok(request.error_response(problem));
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

fn as_admin(caller: Caller) -> Result<Caller, Problem> {
    match caller.kind {
        CallerKind::Admin => Ok(caller),
        CallerKind::Project(_) => Err(Problem::new(Code::PermissionDenied, "this path requires an admin key")),
    }
}

/// The caller as one of a project, if the key has one of the scopes. No scopes: any key of a project.
pub(in crate::api) fn permit(caller: Caller, scopes: &[Scope]) -> Result<Caller, Problem> {
    let caller = match caller.kind {
        CallerKind::Project(_) => caller,
        CallerKind::Admin => caller
            .as_project()
            .ok_or_else(|| Problem::new(Code::PermissionDenied, "this path requires a project key"))?,
    };
    if scopes.is_empty() || scopes.iter().any(|scope| caller.scopes.contains(*scope)) {
        return Ok(caller);
    }
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    let message = format!("this key does not have the scope `{}`", names.join("` or `"));
    Err(Problem::new(Code::PermissionDenied, message))
}

/// Whose key the request has, as `Authorization: Bearer <key>`. Who calls is remembered with the request.
///
/// # Errors
/// 401 without a valid key, 403 from an address that the key does not allow, 429 after too many wrong keys.
pub fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    authenticate_with(request, &["bearer"])
}

/// As [`authenticate`], also with `Authorization: Key <key>`, as fal's clients send it.
pub(in crate::api) fn authenticate_as_fal(request: &HttpRequest) -> Result<Caller, Problem> {
    authenticate_with(request, &["bearer", "key"])
}

fn authenticate_with(request: &HttpRequest, schemes: &[&str]) -> Result<Caller, Problem> {
    if let Some(caller) = request.extensions().get::<Caller>() {
        return Ok(caller.clone());
    }
    let services = request
        .app_data::<web::Data<Services>>()
        .ok_or_else(|| Problem::new(Code::InternalError, "the gateway is not set up"))?;
    let key = presented_key(request, schemes)?;
    let address = request.peer_addr().map(|peer| peer.ip());
    let now = services.clock.now();
    let admitted = services.accounts.admit(key, address, now);
    let caller = admitted.map_err(|refusal| {
        request.extensions_mut().insert(AuthenticationFailed(refusal.to_string()));
        match refusal {
            AdmitError::Key(error) => key_problem(error),
            AdmitError::TooManyFailures(wait) => too_many_failures(wait),
            AdmitError::AddressNotAllowed(_) => {
                Problem::new(Code::PermissionDenied, "this key may not be used from this address")
            }
        }
    })?;
    let project_id = match caller.kind {
        CallerKind::Project(project_id) => Some(project_id),
        CallerKind::Admin => None,
    };
    if let (Some(project), Some(memory)) = (project_id, request.extensions().get::<BodyMemory>()) {
        memory.belongs_to(project);
    }
    let mut extensions = request.extensions_mut();
    extensions.insert(LoggedCaller { api_key_id: caller.api_key_id, project_id });
    extensions.insert(caller.clone());
    Ok(caller)
}

/// The answer to a further key from an address that sent too many wrong ones.
#[must_use]
pub fn too_many_failures(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    let message = format!("too many wrong keys from this address; try again in {seconds} s");
    Problem::new(Code::RateLimitExceeded, message).retry_after(Duration::from_secs(seconds))
}

/// The key of the `Authorization` header; a request with two of them has been refused.
fn presented_key<'a>(request: &'a HttpRequest, schemes: &[&str]) -> Result<&'a str, Problem> {
    let missing = || {
        let message = "this request requires an API key: send it as `Authorization: Bearer <key>`";
        Problem::new(Code::InvalidApiKey, message).header("www-authenticate", "Bearer")
    };
    let value = request.headers().get(AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    let key = key.trim();
    if key.is_empty() || !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(missing());
    }
    Ok(key)
}
