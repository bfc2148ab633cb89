//! Asks the API from inside the process: the same routes and handlers, with the operator who is signed in as the caller.

use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use actix_http::Request;
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::body::{BoxBody, to_bytes};
use actix_web::dev::{AppConfig, Payload, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use actix_web::{App, Error, FromRequest, HttpMessage, HttpRequest, web};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::accounts::{Accounts, AdminAction, AuditEvent, Author, Caller, CallerKind};
use crate::api::Services;
use crate::api::access::{Access, StatedCaller, method_not_allowed, resources};
use crate::domain::ProjectId;
use crate::http::{Code, Problem, RequestContext};
use crate::{admin, api};

type Answer = Pin<Box<dyn Future<Output = Result<ServiceResponse, Error>>>>;
type Api = Rc<dyn Fn(Request) -> Answer>;

/// The API of one web worker, built when it is first asked. Cheap to clone.
#[derive(Clone)]
pub struct Inside {
    services: web::Data<Services>,
    body_limit: usize,
    api: Rc<OnceCell<Api>>,
}

/// Who looks at the console, and how the request came.
#[derive(Clone)]
pub struct Visit {
    /// The operator's key.
    pub caller: Caller,
    /// The console's own request.
    pub context: RequestContext,
    /// How the gateway is reached: scheme and host.
    pub base: String,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    peer: Option<SocketAddr>,
    inside: Inside,
}

impl Inside {
    /// The API with what its handlers need.
    #[must_use]
    pub fn new(services: web::Data<Services>, body_limit: usize) -> Self {
        Self { services, body_limit, api: Rc::default() }
    }

    /// What handlers may use.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    async fn api(&self) -> Result<Api, Problem> {
        self.api.get_or_try_init(|| build(self.services.clone(), self.body_limit)).await.cloned()
    }
}

async fn build(services: web::Data<Services>, body_limit: usize) -> Result<Api, Problem> {
    let mut endpoints = api::endpoints();
    endpoints.extend(admin::endpoints());
    let app = resources("", endpoints, method_not_allowed).into_iter().fold(App::new(), App::service);
    let app = app.app_data(services).app_data(web::PayloadConfig::new(body_limit));
    let service = app.into_factory().new_service(AppConfig::default()).await;
    let service = service.map_err(|()| Problem::new(Code::InternalError, "the console cannot reach the API"))?;
    Ok(Rc::new(move |request| {
        let answer = service.call(request);
        Box::pin(async move { answer.await.map(ServiceResponse::map_into_boxed_body) })
    }))
}

impl FromRequest for Visit {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let visit = request.extensions().get::<Self>().cloned();
        ready(visit.ok_or_else(|| Problem::new(Code::PermissionDenied, "this page requires a session of the console")))
    }
}

impl StatedCaller for Visit {
    const ACCESS: Access = Access::Console;
}

impl Visit {
    /// The visit that a request to the console makes.
    pub fn of(
        request: &actix_web::dev::ServiceRequest,
        inside: Inside,
        caller: Caller,
        context: RequestContext,
    ) -> Self {
        Self {
            caller,
            context,
            base: api::public_base(inside.services(), request.request()),
            host: request.headers().get(HOST).cloned(),
            user_agent: request.headers().get(USER_AGENT).cloned(),
            peer: request.peer_addr(),
            inside,
        }
    }

    /// What handlers may use.
    #[must_use]
    pub fn services(&self) -> &Services {
        self.inside.services()
    }

    /// The accounts; what is changed through them is recorded as this operator's.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
        let ip = self.peer.map(|peer| peer.ip().to_string());
        self.services().accounts.by(Author::Key { api_key_id: self.caller.api_key_id, ip, user_agent })
    }

    /// `GET`: what the API says.
    pub async fn get(&self, path: &str) -> Result<Value, Problem> {
        self.ask(&self.caller, Method::GET, path, None).await
    }

    /// Asks the API to do something.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Problem> {
        self.ask(&self.caller, method, path, Some(body)).await
    }

    /// As [`Visit::send`], on a project's account.
    pub async fn send_as(&self, project: ProjectId, path: &str, body: &Value) -> Result<Value, Problem> {
        if !self.caller.role.may(AdminAction::Operate) {
            let message = format!("the role `{}` does not permit making images for a project", self.caller.role);
            return Err(Problem::new(Code::PermissionDenied, message));
        }
        let caller = Caller { kind: CallerKind::Project(project), ..self.caller.clone() };
        self.ask(&caller, Method::POST, path, Some(body)).await
    }

    /// `GET`: the API's answer as it is, such as a stream of lines.
    pub async fn stream(&self, path: &str) -> Result<ServiceResponse, Problem> {
        self.call(&self.caller, Method::GET, path, None).await
    }

    /// Writes into the audit log that a page hands rows of this kind out as a file.
    pub async fn note_export(&self, what: &str, query: &str) -> Result<(), Problem> {
        Ok(self.accounts().note(AuditEvent::DataExported, None, what.to_owned(), &json!({"query": query})).await?)
    }

    async fn ask(&self, caller: &Caller, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Problem> {
        let answer = self.call(caller, method, path, body).await?;
        let broken = || Problem::new(Code::InternalError, "the API's answer cannot be read");
        let body: web::Bytes = to_bytes(answer.into_body()).await.map_err(|_: Box<dyn std::error::Error>| broken())?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| broken())
    }

    async fn call(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<ServiceResponse<BoxBody>, Problem> {
        let api = self.inside.api().await?;
        let uri = path.parse().map_err(|_| Problem::new(Code::InvalidRequest, "this cannot be looked for"))?;
        let mut request = Request::new();
        let head = request.head_mut();
        head.method = method;
        head.uri = uri;
        head.peer_addr = self.peer;
        for (name, value) in [(HOST, &self.host), (USER_AGENT, &self.user_agent)] {
            if let Some(value) = value {
                head.headers.insert(name, value.clone());
            }
        }
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(body) = body {
            let (_, mut payload) = actix_http::h1::Payload::create(true);
            payload.unread_data(web::Bytes::from(body.to_string()));
            let (bare, _) = request.replace_payload(actix_http::Payload::from(payload));
            request = bare;
        }
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(self.context);
        let answer = api(request).await.map_err(|fault| Problem::of(&fault))?;
        match answer.response().error() {
            Some(fault) => Err(Problem::of(fault)),
            None if !answer.status().is_success() => Err(Problem::from_status(answer.status())),
            None => Ok(answer),
        }
    }
}
