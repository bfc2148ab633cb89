//! Webhooks: a signed call to the customer when a generation has ended.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::receiver::{Call, Receiver};
use crate::support::{Database, House, PROJECT_KEY, Start, eventually, on_both_databases, python, read, t_rex};
use crate::uploads::key_of_another_project;

on_both_databases!(
    a_generation_in_the_background_calls_when_it_has_ended,
    a_call_that_is_not_taken_is_made_again_with_the_same_id,
    a_call_survives_a_crash_and_is_made_once_by_two_replicas,
    a_replay_calls_nobody_a_second_time,
    a_receiver_that_is_gone_is_not_called_again_until_it_is_asked_for,
    a_new_secret_signs_beside_the_one_before,
    private_addresses_are_not_called_unless_allowed,
    a_project_sees_its_own_webhooks_only,
    a_receiver_gets_its_call_while_those_of_others_do_not_answer,
    an_endpoint_that_fails_again_and_again_is_disabled_until_it_is_enabled,
);

const ALLOWED: (&str, &str) = ("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "true");

fn wish(receiver: &Receiver) -> Value {
    let mut wish = t_rex();
    wish["background"] = json!(true);
    wish["webhook_url"] = json!(receiver.url);
    wish
}

async fn calls(receiver: &Receiver, count: usize) -> Vec<Call> {
    eventually(Duration::from_secs(30), || async {
        let calls = receiver.calls();
        (calls.len() >= count).then_some(calls)
    })
    .await
}

async fn secret(house: &House) -> Value {
    read(house.gateway.project(Method::GET, "/v1/webhooks/secret").send().await.unwrap(), StatusCode::OK).await
}

async fn delivery(house: &House, generation: &str, state: &str) -> Value {
    let path = format!("/v1/webhooks/deliveries?generation_id={generation}&state={state}");
    let id = eventually(Duration::from_secs(30), || async {
        let page = read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        page["data"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!("/v1/webhooks/deliveries/{id}");
    read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await
}

/// Checks a call as a customer would: with the specification's own library.
async fn verify(call: &Call, secret: &Value) {
    let script = "
import json, sys
from standardwebhooks import Webhook
given = json.load(sys.stdin)
print(json.dumps(Webhook(given['secret']).verify(given['body'], given['headers'])))
";
    let given = json!({"secret": secret["secret"], "body": call.body, "headers": call.headers});
    let told = python(script, &given.to_string()).await;
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), serde_json::from_str::<Value>(&call.body).unwrap());
}

async fn a_generation_in_the_background_calls_when_it_has_ended(kind: Database) {
    let house = House::with(kind, Duration::from_millis(300), &[ALLOWED]).await;
    let receiver = Receiver::new(&[]);
    let (status, taken) = house.ask(&wish(&receiver)).await;
    assert_eq!(status, 202, "{taken}");
    let id = taken["id"].as_str().unwrap();
    let pending = delivery(&house, id, "pending").await;
    assert_eq!((&pending["num_attempts"], &pending["attempts"]), (&json!(0), &json!([])), "{pending}");

    let call = &calls(&receiver, 1).await[0];
    verify(call, &secret(&house).await).await;
    let body: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(body["type"], "image.generation.succeeded");
    assert_eq!(body["data"]["id"], id);
    let path = format!("/v1/images/generations/{id}");
    let fetched = read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(body["data"], fetched, "the call tells what can be fetched");

    let done = delivery(&house, id, "delivered").await;
    assert_eq!(done["id"].as_str(), call.headers.get("webhook-id").map(String::as_str));
    assert_eq!(done["num_attempts"], 1);
    assert_eq!(done["attempts"][0]["status"], 204);
    assert_eq!(receiver.calls().len(), 1);
    assert!(!house.gateway.log().contains("of-the-customer"), "the address' token is in the log");

    // One that fails calls too, and so does one that a client waits for.
    house.misbehave(json!({"do": {"fail": {"status": 422, "body": {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}}}})).await;
    let mut waited = wish(&receiver);
    waited["background"] = json!(false);
    let (status, _) = house.ask(&waited).await;
    assert_eq!(status, 400);
    let call = calls(&receiver, 2).await[1].clone();
    verify(&call, &secret(&house).await).await;
    let body: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(body["type"], "image.generation.failed");
    assert_eq!(body["data"]["price_usd"], "0.000000000");
    assert!(body["data"]["error"].is_object(), "{body}");
}

async fn a_call_that_is_not_taken_is_made_again_with_the_same_id(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[500, 302]);
    let (_, taken) = house.ask(&wish(&receiver)).await;
    let calls = calls(&receiver, 3).await;
    let secret = secret(&house).await;
    for call in &calls {
        verify(call, &secret).await;
        assert_eq!(call.headers["webhook-id"], calls[0].headers["webhook-id"]);
        assert_eq!(call.body, calls[0].body);
    }
    let times: Vec<i64> = calls.iter().map(|call| call.headers["webhook-timestamp"].parse().unwrap()).collect();
    assert!(times[1] - times[0] >= 1 && times[2] - times[1] >= 5, "{times:?}");
    let done = delivery(&house, taken["id"].as_str().unwrap(), "delivered").await;
    let attempts: Vec<&Value> = done["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(attempts, [500, 302, 204], "{done}");
    assert!(done["attempts"][1]["error"].as_str().unwrap().contains("redirects are not followed"), "{done}");
}

async fn a_call_survives_a_crash_and_is_made_once_by_two_replicas(kind: Database) {
    let mut house = House::with(kind, Duration::from_secs(5), &[ALLOWED]).await;
    let receiver = Receiver::new(&[]);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let (status, taken) = house.ask(&wish(&receiver)).await;
        assert_eq!(status, 202, "{taken}");
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    house.gateway.kill_now();
    let start = || Start::new(&house.database.url, &house.fal.queue_url()).with(ALLOWED.0, ALLOWED.1);
    // A dead replica's generations are taken over when it has given no sign of life for a while.
    let (first, second) = tokio::join!(start().run(), start().run());
    let calls = eventually(Duration::from_mins(1), || async {
        let calls = receiver.calls();
        (calls.len() >= ids.len()).then_some(calls)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.calls().len(), ids.len(), "one call each");
    let mut told: Vec<String> = calls
        .iter()
        .map(|call| serde_json::from_str::<Value>(&call.body).unwrap()["data"]["id"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    ids.sort();
    assert_eq!(told, ids);
    drop((first, second));
}

async fn a_replay_calls_nobody_a_second_time(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[]);
    let send = || house.gateway.generate(&wish(&receiver)).header("Idempotency-Key", "once").send();
    let first = read(send().await.unwrap(), StatusCode::ACCEPTED).await;
    calls(&receiver, 1).await;
    let again = send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(read(again, StatusCode::ACCEPTED).await["id"], first["id"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.calls().len(), 1);
    // To call somebody else is another request.
    let mut other = wish(&receiver);
    other["webhook_url"] = json!("https://example.com/other");
    let refused = house.gateway.generate(&other).header("Idempotency-Key", "once").send().await.unwrap();
    read(refused, StatusCode::UNPROCESSABLE_ENTITY).await;
}

async fn a_receiver_that_is_gone_is_not_called_again_until_it_is_asked_for(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[410]);
    let (_, taken) = house.ask(&wish(&receiver)).await;
    let generation = taken["id"].as_str().unwrap();
    let failed = delivery(&house, generation, "failed").await;
    assert_eq!(failed["attempts"][0]["status"], 410);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.calls().len(), 1);

    let path = format!("/v1/webhooks/deliveries/{}/redeliver", failed["id"].as_str().unwrap());
    let revived = house.gateway.project(Method::POST, &path).send().await.unwrap();
    assert_eq!(read(revived, StatusCode::ACCEPTED).await["state"], "pending");
    let done = delivery(&house, generation, "delivered").await;
    assert_eq!(done["num_attempts"], 2);
    assert_eq!(receiver.calls().len(), 2);
}

async fn a_new_secret_signs_beside_the_one_before(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[]);
    let before = secret(&house).await;
    assert_eq!(secret(&house).await, before, "it stays");
    let path = "/v1/webhooks/secret/rotate";
    let after = read(house.gateway.project(Method::POST, path).send().await.unwrap(), StatusCode::OK).await;
    assert_ne!(after["secret"], before["secret"]);
    assert!(after["previous_until"].as_i64().unwrap() - after["created_at"].as_i64().unwrap() == 24 * 3600);
    house.ask(&wish(&receiver)).await;
    let call = &calls(&receiver, 1).await[0];
    for secret in [&before, &after] {
        verify(call, secret).await;
    }
    assert!(!house.gateway.log().contains(&after["secret"].as_str().unwrap()[6..]));
}

async fn private_addresses_are_not_called_unless_allowed(kind: Database) {
    let house = House::new(kind).await;
    let receiver = Receiver::new(&[]);
    for url in [
        receiver.url.as_str(),
        "http://localhost/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "https://10.0.0.1/hook",
        "ftp://example.com/hook",
        "https://me:secret@example.com/hook",
        "no address",
    ] {
        let mut wish = wish(&receiver);
        wish["webhook_url"] = json!(url);
        let (status, body) = house.ask(&wish).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!("webhook_url")), "{url}: {body}");
    }
    assert!(house.gateway.generations().await.is_empty(), "nothing was booked");
    assert!(receiver.calls().is_empty());
}

async fn a_project_sees_its_own_webhooks_only(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[]);
    let (_, taken) = house.ask(&wish(&receiver)).await;
    let done = delivery(&house, taken["id"].as_str().unwrap(), "delivered").await;
    let project = house.gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "other"}));
    let project = read(project.send().await.unwrap(), StatusCode::OK).await;
    let path = format!("/v1/organization/projects/{}/service_accounts", project["id"].as_str().unwrap());
    let account = house
        .gateway
        .admin(Method::POST, &path)
        .json(&json!({"name": "robot", "scopes": ["webhooks"]}))
        .send()
        .await
        .unwrap();
    let key = read(account, StatusCode::OK).await["api_key"]["value"].as_str().unwrap().to_owned();
    let other = |method, path: &str| house.gateway.request(method, path).bearer_auth(&key);

    let page = read(other(Method::GET, "/v1/webhooks/deliveries").send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(page["data"], json!([]));
    let path = format!("/v1/webhooks/deliveries/{}", done["id"].as_str().unwrap());
    read(other(Method::GET, &path).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    read(other(Method::POST, &format!("{path}/redeliver")).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    let own = read(other(Method::GET, "/v1/webhooks/secret").send().await.unwrap(), StatusCode::OK).await;
    assert_ne!(own["secret"], secret(&house).await["secret"]);
    let open = house.gateway.request(Method::GET, "/v1/webhooks/secret").send().await.unwrap();
    read(open, StatusCode::UNAUTHORIZED).await;
    let admin = house.gateway.admin(Method::GET, "/v1/webhooks/secret").send().await.unwrap();
    read(admin, StatusCode::FORBIDDEN).await;
    assert_ne!(key, PROJECT_KEY);
}

/// A receiver that takes connections and never answers.
fn dead() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    (listener, url)
}

async fn a_receiver_gets_its_call_while_those_of_others_do_not_answer(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let (_, key) = key_of_another_project(&house.gateway).await;
    let dead: Vec<_> = (0..10).map(|_| dead()).collect();
    let silent = |url: &str| {
        let mut wish = t_rex();
        wish["background"] = json!(true);
        wish["webhook_url"] = json!(url);
        wish
    };
    // More than there are slots, and due before the other project's.
    let asked = dead.iter().cycle().take(130).map(|(_, url)| {
        let wish = silent(url);
        let house = &house;
        async move { assert_eq!(house.ask(&wish).await.0, 202) }
    });
    futures_util::future::join_all(asked).await;
    let begun = || async {
        read(
            house.gateway.admin(Method::GET, "/admin/v1/generations?state=succeeded&limit=1000").send().await.unwrap(),
            StatusCode::OK,
        )
        .await
    };
    eventually(Duration::from_secs(30), || async {
        (begun().await["data"].as_array().unwrap().len() == 130).then_some(())
    })
    .await;
    // They are being tried.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let receiver = Receiver::new(&[]);
    let started = std::time::Instant::now();
    let ask = house.gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(&wish(&receiver));
    assert_eq!(ask.send().await.unwrap().status(), StatusCode::ACCEPTED);
    eventually(Duration::from_secs(2), || async { (!receiver.calls().is_empty()).then_some(()) }).await;
    // On an idle machine within two seconds. A call to one of the others takes twenty.
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    let begun = house.gateway.log().matches("webhook called").count();
    assert!(begun < 100, "{begun} calls have ended, so that slots were free");
}

async fn an_endpoint_that_fails_again_and_again_is_disabled_until_it_is_enabled(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[ALLOWED]).await;
    let receiver = Receiver::new(&[500; 5]);
    for _ in 0..5 {
        assert_eq!(house.ask(&wish(&receiver)).await.0, 202);
    }
    let list = || async {
        read(house.gateway.project(Method::GET, "/v1/webhooks/endpoints").send().await.unwrap(), StatusCode::OK).await
    };
    let disabled = eventually(Duration::from_secs(30), || async {
        let endpoint = list().await["data"][0].clone();
        (endpoint["state"] == "disabled").then_some(endpoint)
    })
    .await;
    assert_eq!(
        (&disabled["num_failures"], &disabled["last_error"]),
        (&json!(5), &json!("answered 500 Internal Server Error"))
    );
    let (since, probe) = (disabled["disabled_at"].as_i64().unwrap(), disabled["next_attempt_at"].as_i64().unwrap());
    assert!((29..=31).contains(&(probe - since)), "{disabled}");
    assert!(house.gateway.log().contains("webhook endpoint disabled"));
    let metrics = house.gateway.admin(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("imagegate_webhook_endpoints_disabled 1"), "{metrics}");

    // Its calls are due again after a second, and wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(receiver.calls().len(), 5);
    let path = format!("/v1/webhooks/endpoints/{}/enable", disabled["host"].as_str().unwrap());
    let (_, key) = key_of_another_project(&house.gateway).await;
    let foreign = house.gateway.request(Method::POST, &path).bearer_auth(key).send().await.unwrap();
    assert_ne!(foreign.status(), StatusCode::NO_CONTENT);
    let enabled = house.gateway.project(Method::POST, &path).send().await.unwrap();
    assert_eq!(enabled.status(), StatusCode::NO_CONTENT);
    calls(&receiver, 10).await;
    assert_eq!(list().await["data"], json!([]));
    let again = house.gateway.project(Method::POST, &path).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
}
