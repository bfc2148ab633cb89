//! Routes: a path, a method, a handler, and who may call it.

use actix_web::http::Method;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route, web};
use utoipa::__dev::{SchemaReferences, Tags};
use utoipa::openapi::path::{HttpMethod, Operation, Paths};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, Response, Schema};

use super::parameters::describe_parameters;
use super::{Access, Open, StatesCaller};
use crate::accounts::AdminAction;
use crate::api::foreign::foreign_path;
use crate::http::{Code, Problem, short_path};

/// A route whose handler states who may call it.
pub struct Endpoint {
    pattern: String,
    method: Method,
    route: Route,
    access: Access,
    document: Option<Documented>,
}

/// What the document says about a route.
struct Documented {
    path: String,
    method: HttpMethod,
    operation: fn() -> Operation,
    tags: fn() -> Vec<&'static str>,
    schemas: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Endpoint {
    /// A route of the document: the path and the method are those of its `utoipa::path` attribute `P`.
    pub fn new<P, H, Args>(_: P, handler: H) -> Self
    where
        P: utoipa::Path + SchemaReferences + Tags<'static>,
        H: Handler<Args>,
        H::Output: Responder + 'static,
        Args: FromRequest + StatesCaller + 'static,
    {
        let documented = P::methods().into_iter().next().unwrap_or(HttpMethod::Get);
        let method = method_of(&documented);
        let document = Documented {
            path: P::path(),
            method: documented,
            operation: P::operation,
            tags: P::tags,
            schemas: P::schemas,
        };
        Self { document: Some(document), ..Self::page(method, &P::path(), handler) }
    }

    /// A route that is not part of the document, such as a page for people.
    pub fn page<H, Args>(method: Method, pattern: &str, handler: H) -> Self
    where
        H: Handler<Args>,
        H::Output: Responder + 'static,
        Args: FromRequest + StatesCaller + 'static,
    {
        let route = web::method(method.clone()).to(handler);
        Self { pattern: pattern.to_owned(), method, route, access: Args::ACCESS, document: None }
    }

    /// The same route under a pattern whose parameters may hold slashes, which the document cannot say.
    #[must_use]
    pub fn at(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.pattern);
        self
    }

    /// Whether its path lies below this prefix, which ends with a whole segment.
    #[must_use]
    pub fn is_below(&self, prefix: &str) -> bool {
        self.pattern.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Who may call it.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }
}

/// The [`Endpoint`] of a handler with a `utoipa::path` attribute: `endpoint!(module::handler)`.
macro_rules! endpoint {
    ($module:ident :: $handler:ident) => {
        pastey::paste! { $crate::api::access::Endpoint::new($module::[<__path_ $handler>], $module::$handler) }
    };
}
pub(crate) use endpoint;

/// A page: `page!(GET "/console/usage" => usage::show)`.
macro_rules! page {
    ($method:ident $pattern:literal => $handler:path) => {
        $crate::api::access::Endpoint::page(::actix_web::http::Method::$method, $pattern, $handler)
    };
}
pub(crate) use page;

fn method_of(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Trace => Method::TRACE,
        HttpMethod::Get => Method::GET,
    }
}

/// Adds the routes to the document, each with the key that it requires.
pub fn add_to_document(endpoints: &[Endpoint], document: &mut OpenApi) {
    let mut schemas = Vec::new();
    for endpoint in endpoints {
        let Some(documented) = &endpoint.document else { continue };
        let mut operation = (documented.operation)();
        describe_parameters(&mut operation, &endpoint.pattern);
        describe_refusals(&mut operation, endpoint.access);
        let tags = (documented.tags)().into_iter().map(str::to_owned);
        operation.tags.get_or_insert_default().extend(tags);
        describe_access(&mut operation, endpoint.access);
        (documented.schemas)(&mut schemas);
        let mut paths = Paths::new();
        paths.paths.insert(documented.path.clone(), PathItem::new(documented.method.clone(), operation));
        document.paths.merge(paths);
    }
    document.components.get_or_insert_default().schemas.extend(schemas);
}

/// Says in the document who may call.
fn describe_access(operation: &mut Operation, access: Access) {
    let (schemes, sentence): (&[&str], Option<String>) = match access {
        Access::Open | Access::Console => (&[], None),
        Access::Project(scopes) | Access::FalClient(scopes) => {
            let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
            let sentence = match names.as_slice() {
                [] => None,
                [one] => Some(format!("Requires the scope `{one}`.")),
                several => Some(format!("Requires one of the scopes `{}`.", several.join("`, `"))),
            };
            let schemes: &[&str] =
                if matches!(access, Access::FalClient(_)) { &["project_key", "fal_key"] } else { &["project_key"] };
            (schemes, sentence)
        }
        Access::Admin(action) => (&["admin_key"], Some(format!("Roles: {}.", roles_that_may(action)))),
    };
    if !schemes.is_empty() {
        let requirement = |scheme: &&str| SecurityRequirement::new(*scheme, Vec::<String>::new());
        operation.security = Some(schemes.iter().map(requirement).collect());
    }
    if let Some(sentence) = sentence {
        operation.description = Some(match operation.description.take().filter(|text| !text.is_empty()) {
            Some(text) => format!("{text}\n\n{sentence}"),
            None => sentence,
        });
    }
}

/// Adds the answers that the server gives before a handler is asked, where the handler's own list does not have them.
fn describe_refusals(operation: &mut Operation, access: Access) {
    let mut refusals = vec![("400", "The path or a header is malformed or ambiguous.")];
    if operation.request_body.is_some() {
        refusals.push(("415", "The body is encoded (`Content-Encoding`)."));
    }
    if !matches!(access, Access::Open | Access::Console) {
        refusals.push(("401", "Missing or invalid API key."));
        refusals.push(("403", "The key does not permit this."));
        refusals.push(("429", "Too many wrong keys from this address; see `Retry-After`."));
    }
    let is_fals = matches!(access, Access::FalClient(_));
    for (status, description) in refusals {
        let response = operation.responses.responses.entry(status.to_owned());
        let response = response.or_insert_with(|| RefOr::T(Response::new(description)));
        // Also where fal's clients read fal's shape, the frame around all requests answers in ours.
        if let RefOr::T(response) = response
            && (response.content.is_empty() || is_fals && matches!(status, "400" | "415"))
        {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content.insert("application/problem+json".to_owned(), RefOr::T(problem));
        }
    }
}

fn roles_that_may(action: AdminAction) -> String {
    let roles: Vec<String> = crate::accounts::Role::ALL
        .into_iter()
        .filter(|role| role.may(action))
        .map(|role| format!("`{role}`"))
        .collect();
    roles.join(", ")
}

/// What answers a method that a path does not have; it is given the methods that it has.
pub type WrongMethod = fn(&HttpRequest, &str) -> HttpResponse;

/// One resource for all methods of a path, which answers any other method with `wrong_method`. Paths are registered
/// without `prefix`, for a scope that has it.
pub fn resources(prefix: &str, endpoints: Vec<Endpoint>, wrong_method: WrongMethod) -> Vec<Resource> {
    let mut groups: Vec<(String, Vec<Endpoint>)> = Vec::new();
    for endpoint in endpoints {
        match groups.iter_mut().find(|(pattern, _)| *pattern == endpoint.pattern) {
            Some((_, group)) => group.push(endpoint),
            None => groups.push((endpoint.pattern.clone(), vec![endpoint])),
        }
    }
    let resource = |(pattern, group): (String, Vec<Endpoint>)| {
        let mut allowed: Vec<&str> = group.iter().map(|endpoint| endpoint.method.as_str()).collect();
        // Whatever answers `GET` answers `HEAD`, without the body.
        if let Some(get) = allowed.iter().position(|method| *method == "GET") {
            allowed.insert(get + 1, "HEAD");
        }
        let allowed = allowed.join(", ");
        let below = pattern.strip_prefix(prefix).unwrap_or(&pattern);
        let resource =
            group.into_iter().fold(web::resource(below), |resource, endpoint| resource.route(endpoint.route));
        resource.default_service(web::to(move |request: HttpRequest| {
            let answer = wrong_method(&request, &allowed);
            async move { answer }
        }))
    };
    groups.into_iter().map(resource).collect()
}

/// Answers 405 in the one error shape, with `Allow`.
#[must_use]
pub fn method_not_allowed(request: &HttpRequest, allowed: &str) -> HttpResponse {
    if let Some(problem) = foreign_path(request.path()) {
        return HttpResponse::from_error(problem);
    }
    let message = format!("`{}` supports {allowed}, not {}", short_path(request.path()), request.method());
    HttpResponse::from_error(Problem::new(Code::MethodNotAllowed, message).header("allow", allowed))
}

/// Answers a path that does not exist; one of another API with where images are made.
pub async fn path_not_found(_: Open, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if let Some(problem) = foreign_path(request.path()) {
        return Err(problem);
    }
    Err(Problem::new(Code::NotFound, format!("there is nothing at `{}`", short_path(request.path()))))
}
