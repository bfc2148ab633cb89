//! Who may call what, whatever the spelling of a path: every route of the document, every kind of key, both listeners.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use imagegate::domain::{Role, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::raw::{RawAnswer, RawClient};
use crate::support::tools::setting;
use crate::support::{ADMIN_KEY, Database, House, PROJECT_KEY, eventually, free_port, on_both_databases, read, t_rex};

on_both_databases!(guessing_keys_is_refused_with_growing_pauses,);

/// An id that nothing has, in the form of each kind of id.
const NOBODY: &str = "019e1951c77871209c8216efcf40ec82";
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// One path of the document.
struct Route {
    /// Without parameters.
    path: String,
    /// Documented methods, each with whether it requires an admin key and whether it requires any key.
    operations: BTreeMap<String, (bool, bool)>,
}

/// Every path of the document, with ids in place of the parameters.
fn routes(document: &Value, generation: &str) -> Vec<Route> {
    let concrete = |path: &str| {
        path.replace("/v1/images/generations/{id}", &format!("/v1/images/generations/{generation}"))
            .replace("{project_id}", &format!("proj_{NOBODY}"))
            .replace("{id}", if path.starts_with("/v1/models") { "flux/dev" } else { NOBODY })
            .split('/')
            .map(|segment| if segment.starts_with('{') { NOBODY } else { segment })
            .collect::<Vec<_>>()
            .join("/")
    };
    let needs = |operation: &Value, scheme: &str| {
        let security = operation["security"].as_array().map(Vec::as_slice).unwrap_or_default();
        security.iter().any(|one| one.get(scheme).is_some())
    };
    let mut routes: Vec<Route> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| Route {
            path: concrete(path),
            operations: item
                .as_object()
                .unwrap()
                .iter()
                .map(|(method, operation)| {
                    let is_admin = needs(operation, "admin_key");
                    (method.to_uppercase(), (is_admin, is_admin || needs(operation, "project_key")))
                })
                .collect(),
        })
        .collect();
    let page = |path: &str, is_admin: bool| Route {
        path: path.to_owned(),
        operations: BTreeMap::from([("GET".to_owned(), (is_admin, is_admin))]),
    };
    routes.extend([page("/console", true), page("/console/usage", true), page("/console/generations.csv", true)]);
    routes.push(page("/docs", false));
    routes
}

/// Other spellings of a path: each letter of its fixed segments escaped once (or each segment's first one), and everything
/// that some server reads as another path.
fn spellings(path: &str, each_letter: bool) -> Vec<String> {
    let mut all = Vec::new();
    let is_id = |segment: &str| segment.contains(NOBODY) || segment.starts_with("gen_");
    let segments = path.split('/').scan(0, |start, segment| {
        let here = *start;
        *start += segment.len() + 1;
        Some((here, segment))
    });
    let fixed = segments.filter(|(_, segment)| !is_id(segment));
    let letters = if each_letter { usize::MAX } else { 1 };
    let letters =
        fixed.flat_map(|(start, segment)| segment.char_indices().take(letters).map(move |(at, c)| (start + at, c)));
    for (place, letter) in letters {
        let escaped =
            if place % 2 == 0 { format!("%{:02x}", letter as u32) } else { format!("%{:02X}", letter as u32) };
        all.push(format!("{}{escaped}{}", &path[..place], &path[place + 1..]));
    }
    let (head, tail) = path.rsplit_once('/').unwrap();
    let twice = path.replacen(|letter: char| letter.is_ascii_lowercase(), "%2561", 1);
    all.extend([
        format!("{path}/"),
        format!("{path}//"),
        format!("/{path}"),
        path.replacen('/', "//", 2),
        format!("{head}/./{tail}"),
        format!("{head}/%2e/{tail}"),
        format!("{head}/x/../{tail}"),
        format!("{head}/x/%2e%2e/{tail}"),
        format!("{head}/x%2f..%2f{tail}"),
        format!("{head}%2f{tail}"),
        format!("{head}%2F{tail}"),
        format!("{head}%5c{tail}"),
        format!("{head}\\{tail}"),
        format!("{path};a=b"),
        format!("{head};a=b/{tail}"),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}%c0%af"),
        format!("{path}%"),
        path.to_uppercase(),
        twice,
        format!("/docs/..{path}"),
        format!("/v1/models/..{path}"),
        format!("/healthz/../..{path}"),
    ]);
    all
}

/// The same, as far as a client can tell; ids and times differ.
fn outcome(answer: &RawAnswer) -> (u16, String) {
    (answer.status, answer.code())
}

struct Keys(Vec<(&'static str, Option<String>)>);

impl Keys {
    fn header(&self, name: &str) -> Option<(&'static str, String)> {
        let (_, key) = self.0.iter().find(|(known, _)| *known == name).unwrap();
        let key = key.as_ref()?;
        Some(if name == "session" { ("cookie", key.clone()) } else { ("authorization", format!("Bearer {key}")) })
    }
}

/// A key of each kind.
async fn every_kind_of_key(house: &House, admin_base: &str) -> Keys {
    let admin = |method: Method, path: &str| {
        house.gateway.client.request(method, format!("{admin_base}{path}")).bearer_auth(ADMIN_KEY)
    };
    let make = async |project: &str, mut body: Value| {
        body["scopes"] = json!(Scope::ALL.map(Scope::name));
        let path = format!("/v1/organization/projects/{project}/service_accounts");
        let made = read(admin(Method::POST, &path).json(&body).send().await.unwrap(), StatusCode::OK).await;
        (made["api_key"]["id"].as_str().unwrap().to_owned(), made["api_key"]["value"].as_str().unwrap().to_owned())
    };
    let new = admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "another"}));
    let other = read(new.send().await.unwrap(), StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let default = read(admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap(), StatusCode::OK).await;
    let default = default["id"].as_str().unwrap();
    let (_, service_account) = make(default, json!({"name": "service"})).await;
    let (_, others) = make(&other, json!({"name": "others"})).await;
    let (revoked_id, revoked) = make(default, json!({"name": "revoked"})).await;
    let path = format!("/v1/organization/projects/{default}/api_keys/{revoked_id}");
    read(admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    let (expired_id, expired) = make(default, json!({"name": "expired"})).await;
    let body = json!({"expires_at": 1_000_000_000});
    let expire = admin(Method::PATCH, &format!("/admin/v1/keys/{expired_id}")).json(&body);
    read(expire.send().await.unwrap(), StatusCode::OK).await;
    let sign_in = house
        .gateway
        .client
        .post(format!("{admin_base}/console/sign-in"))
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("key={ADMIN_KEY}&next=/console"));
    let signed_in = sign_in.send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    Keys(vec![
        ("none", None),
        ("wrong", Some("sk-ig-0000000000000000000000000000000000000000000000000000000000000000".to_owned())),
        ("revoked", Some(revoked)),
        ("expired", Some(expired)),
        ("others", Some(others)),
        ("project", Some(PROJECT_KEY.to_owned())),
        ("service", Some(service_account)),
        ("admin", Some(ADMIN_KEY.to_owned())),
        ("session", Some(cookie)),
    ])
}

/// On one database: what decides here is in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_path_gives_more_than_the_plain_one() {
    let kind = Database::Sqlite;
    // Once with one listener for everything, once with the operators on another.
    let port = free_port();
    let own = format!("127.0.0.1:{port}");
    let one = House::new(kind).await;
    let two = House::with(kind, Duration::ZERO, &[("IMAGEGATE_ADMIN_BIND", &own)]).await;
    let document = one.gateway.request(Method::GET, "/openapi.json").send().await.unwrap();
    let document: Value = read(document, StatusCode::OK).await;
    let mut checks = Vec::new();
    for (house, operators) in [(&one, one.gateway.base.clone()), (&two, format!("http://{own}"))] {
        let (_, made) = house.ask(&t_rex()).await;
        let generation = made["id"].as_str().unwrap_or(NOBODY).to_owned();
        let keys = every_kind_of_key(house, &operators).await;
        let routes = routes(&document, &generation);
        let public = house.gateway.base.clone();
        let apart = public != operators;
        let mut listeners = vec![(public, true)];
        if apart {
            listeners.push((operators, false));
        }
        let known = Arc::new((keys, routes));
        for (base, is_public) in listeners {
            let known = Arc::clone(&known);
            checks.push(tokio::task::spawn_blocking(move || {
                let mut client = RawClient::new(&base);
                for route in &known.1 {
                    check_route(&mut client, route, &known.0, apart.then_some(is_public));
                }
            }));
        }
    }
    for check in checks {
        check.await.unwrap();
    }
}

fn send(client: &mut RawClient, method: &str, target: &str, keys: &Keys, key: &str) -> RawAnswer {
    let header = keys.header(key);
    let headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = if matches!(method, "GET" | "HEAD" | "DELETE") { "" } else { "{}" };
    client.send(method, target, &headers, body)
}

/// `apart`: whether this is the public one of two listeners; `None` if there is only one.
fn check_route(client: &mut RawClient, route: &Route, keys: &Keys, apart: Option<bool>) {
    for method in METHODS {
        let documented = if method == "HEAD" { "GET" } else { method };
        let operation = route.operations.get(documented);
        for (name, _) in &keys.0 {
            // Wrong keys are limited: one method says as much as all.
            if *name == "wrong" && operation.is_none() {
                continue;
            }
            let answer = send(client, method, &route.path, keys, name);
            let place = format!("{method} {} with {name} key", route.path);
            let status = answer.status;
            let Some((is_admin, is_keyed)) = operation else {
                assert!(matches!(status, 400 | 401 | 403 | 404 | 405 | 303), "{place}: {status}");
                continue;
            };
            match apart {
                Some(true) if *is_admin => assert_eq!(status, 404, "{place} on the public listener"),
                Some(false) if *is_keyed && !is_admin => assert_eq!(status, 404, "{place} on the operators' listener"),
                _ if *is_admin && route.path.starts_with("/console") => {
                    assert_eq!(status == 303, *name != "session", "{place}: {status}");
                }
                Some(false) if route.path == "/metrics" => assert_eq!(status, 200, "{place}"),
                _ => {
                    let refused = match *name {
                        "none" | "wrong" | "revoked" | "expired" | "session" => is_keyed.then_some(401),
                        "admin" => (*is_keyed && !is_admin).then_some(403),
                        _ => is_admin.then_some(403),
                    };
                    match refused {
                        Some(refused) => assert_eq!(status, refused, "{place}"),
                        // Open to all, but fal's signature is the key.
                        None if route.path.starts_with("/fal/webhooks/") => assert_eq!(status, 403, "{place}"),
                        None => assert!(!matches!(status, 401 | 403 | 405), "{place}: {status}"),
                    }
                }
            }
            assert!(status < 500 || route.path == "/fal/proxy" || status == 502, "{place}: {status}");
        }
    }
    for method in route.operations.keys() {
        let is_open = route.operations.values().all(|(_, is_keyed)| !is_keyed);
        for name in if is_open { &["none"][..] } else { &["none", "project", "admin"] } {
            // Twice: the first may change what the second finds.
            send(client, method, &route.path, keys, name);
            let plain = send(client, method, &route.path, keys, name);
            // One list of routes makes all listeners: every letter is tried at one of them.
            for spelling in spellings(&route.path, apart.is_none()) {
                let answer = send(client, method, &spelling, keys, name);
                let same = outcome(&answer) == outcome(&plain);
                assert!(
                    same || matches!(answer.status, 400 | 404 | 405),
                    "{method} {spelling} with {name} key: {:?}, but {} gives {:?}",
                    outcome(&answer),
                    route.path,
                    outcome(&plain)
                );
                if route.path.starts_with("/v1/organization") || route.path.starts_with("/admin") {
                    assert!(answer.header("access-control-allow-origin").is_none(), "{method} {spelling}");
                }
            }
        }
    }
}

async fn guessing_keys_is_refused_with_growing_pauses(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let ask = |address: &str, key: &str| {
        let path = "/v1/images/generations?limit=1";
        house.gateway.request(Method::GET, path).bearer_auth(key).header("x-forwarded-for", address).send()
    };
    // This key is known at the address before somebody else there guesses.
    read(ask("198.51.100.1", PROJECT_KEY).await.unwrap(), StatusCode::OK).await;
    let (mut refused, mut paused, mut waits) = (0, 0, Vec::new());
    for guess in 0..60 {
        let answer = ask("198.51.100.1", &format!("sk-ig-guess-{guess}")).await.unwrap();
        match answer.status() {
            StatusCode::UNAUTHORIZED => refused += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                paused += 1;
                waits.push(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
                assert_eq!(read(answer, StatusCode::TOO_MANY_REQUESTS).await["error"]["code"], "rate_limit_exceeded");
            }
            other => panic!("{other}"),
        }
    }
    assert!((20..40).contains(&refused) && paused >= 20, "{refused} were answered 401, {paused} were paused");
    assert!(waits.iter().all(|wait| (1..=900).contains(wait)), "{waits:?}");
    // Who is known there is not locked out, an unknown key is, and other addresses do not notice.
    read(ask("198.51.100.1", PROJECT_KEY).await.unwrap(), StatusCode::OK).await;
    read(ask("198.51.100.2", PROJECT_KEY).await.unwrap(), StatusCode::OK).await;
    let unknown = ask("198.51.100.1", ADMIN_KEY).await.unwrap();
    assert_eq!(unknown.status(), StatusCode::TOO_MANY_REQUESTS, "nor can a guess be told from the truth");

    let sign_in = |address: &str, key: &str| {
        let request = house.gateway.request(Method::POST, "/console/sign-in").header("x-forwarded-for", address);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.header("sec-fetch-site", "same-origin").body(format!("key={key}&next=/console")).send()
    };
    let guesses = (0..45).map(|guess| {
        let key = format!("sk-ig-admin-guess-{guess}");
        let sign_in = &sign_in;
        async move { sign_in("198.51.100.3", &key).await.unwrap().status().as_u16() }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(sign_in("198.51.100.3", ADMIN_KEY).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let signed_in = sign_in("198.51.100.4", ADMIN_KEY).await.unwrap();
    assert_eq!(signed_in.status(), StatusCode::SEE_OTHER);
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let sign_out = house.gateway.request(Method::POST, "/console/sign-out").header("cookie", cookie);
    let signed_out = sign_out.header("sec-fetch-site", "same-origin").header("x-forwarded-for", "198.51.100.4");
    assert_eq!(signed_out.send().await.unwrap().status(), StatusCode::SEE_OTHER);

    // The log has addresses, paths and request ids; the audit log has who signed in and out.
    let lines = eventually(Duration::from_secs(20), || async {
        let log = house.gateway.log();
        log.contains("an operator signed in").then_some(log)
    })
    .await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refusal = lines.iter().find(|line| line["fields"]["message"] == "authentication failed").unwrap();
    for field in ["reason", "client_address", "path", "request_id"] {
        assert!(refusal["fields"][field].is_string(), "{refusal}");
    }
    let request = lines.iter().find(|line| line["fields"]["key_id"].is_string()).unwrap();
    assert_eq!(request["fields"]["client_address"], "198.51.100.1", "{request}");
    assert!(request["fields"]["project_id"].as_str().unwrap().starts_with("proj_"), "{request}");
    let events = "event_types[]=login.succeeded&event_types[]=login.failed&event_types[]=logout.succeeded&limit=100";
    let audit = house.gateway.admin(Method::GET, &format!("/v1/organization/audit_logs?{events}"));
    let audit = read(audit.header("x-forwarded-for", "198.51.100.5").send().await.unwrap(), StatusCode::OK).await;
    let of = |event: &str, address: &str| {
        let entries = audit["data"].as_array().unwrap().iter();
        entries.filter(|entry| entry["type"] == event && entry["actor"]["session"]["ip_address"] == address).count()
    };
    assert_eq!((of("login.succeeded", "198.51.100.4"), of("logout.succeeded", "198.51.100.4")), (1, 1), "{audit}");
    assert!(of("login.failed", "198.51.100.3") >= 20, "{audit}");
}

/// A key with one scope or one role for each column of the table.
async fn keys_by_permission(house: &House) -> Vec<(String, Option<String>)> {
    let mut keys = vec![("no key".to_owned(), None)];
    let default = house.gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap();
    let default = read(default, StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    for scope in Scope::ALL {
        let path = format!("/v1/organization/projects/{default}/service_accounts");
        let body = json!({"name": scope.name(), "scopes": [scope.name()]});
        let made = house.gateway.admin(Method::POST, &path).json(&body).send().await.unwrap();
        let made = read(made, StatusCode::OK).await;
        keys.push((format!("`{scope}`"), Some(made["api_key"]["value"].as_str().unwrap().to_owned())));
    }
    for role in Role::ALL {
        let body = json!({"name": role.name(), "role": role.name()});
        let made = house.gateway.admin(Method::POST, "/v1/organization/admin_api_keys").json(&body);
        let made = read(made.send().await.unwrap(), StatusCode::OK).await;
        keys.push((format!("{role}"), Some(made["value"].as_str().unwrap().to_owned())));
    }
    keys
}

/// The table in `SECURITY.md` is what a gateway really does; `IMAGEGATE_TEST_WRITE=1` writes it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_who_may_call_what_is_true() {
    const START: &str = "<!-- permissions: made by tests/api/authorization.rs -->\n";
    const END: &str = "<!-- /permissions -->";
    let house = House::new(Database::Sqlite).await;
    let document = house.gateway.request(Method::GET, "/openapi.json").send().await.unwrap();
    let document: Value = read(document, StatusCode::OK).await;
    let keys = keys_by_permission(&house).await;
    let base = house.gateway.base.clone();
    let work = move || {
        let mut client = RawClient::new(&base);
        let heads: Vec<&str> = keys.iter().map(|(head, _)| head.as_str()).collect();
        let mut table = format!("| route | {} |\n|---|{}\n", heads.join(" | "), ":-:|".repeat(heads.len()));
        let concrete = routes(&document, NOBODY);
        for ((path, item), route) in document["paths"].as_object().unwrap().iter().zip(&concrete) {
            for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
                let is_keyed = route.operations[&method].1;
                let cells = keys.iter().map(|(_, key)| {
                    let bearer = key.as_ref().map(|key| format!("Bearer {key}"));
                    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", &**bearer)).collect();
                    let body = if matches!(&*method, "GET" | "DELETE") { "" } else { "{}" };
                    let status = client.send(&method, &route.path, &headers, body).status;
                    if !is_keyed || !matches!(status, 401 | 403) { "●" } else { "" }
                });
                let cells: Vec<&str> = cells.collect();
                writeln!(table, "| `{method} {path}` | {} |", cells.join(" | ")).unwrap();
            }
        }
        table
    };
    let table = tokio::task::spawn_blocking(work).await.unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (before, rest) = text.split_once(START).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if setting("IMAGEGATE_TEST_WRITE").is_some() {
        std::fs::write(file, format!("{before}{START}{table}{END}{after}")).unwrap();
    } else {
        assert!(written == table, "SECURITY.md is out of date: IMAGEGATE_TEST_WRITE=1 cargo test --test api the_table");
    }
}
