//! What the books say afterwards: one row for each image request, usage that adds up, failures that are free.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, PROJECT_KEY, Start, client, on_both_databases, read, start_sandbox, t_rex};

on_both_databases!(
    usage_adds_up_by_model_key_and_day,
    a_markup_is_on_the_price_and_not_on_the_cost,
    a_provider_that_is_away_costs_nothing,
    the_list_is_paged_newest_first_and_filtered,
    no_key_and_no_prompt_is_in_the_log_or_the_database,
);

async fn usage(house: &House, query: &str) -> Value {
    let answer =
        house.gateway.admin(Method::GET, &format!("/v1/organization/usage/images?{query}")).send().await.unwrap();
    read(answer, StatusCode::OK).await
}

fn results(page: &Value) -> Vec<Value> {
    page["data"].as_array().unwrap().iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone()).collect()
}

async fn usage_adds_up_by_model_key_and_day(kind: Database) {
    let house = House::new(kind).await;
    for (model, n) in [("flux/dev", 1), ("flux/dev", 3), ("flux-realism", 2)] {
        let body = json!({"model": model, "prompt": "a", "n": n, "size": "1024x1024", "user": "u1"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let day = 24 * 3600;
    let created = house.gateway.generations().await[0]["settled_at"].as_i64().unwrap();
    let today = created - created % day;
    let page = usage(&house, &format!("start_time={}&bucket_width=1d&group_by[]=model", today - day)).await;
    assert_eq!((&page["object"], &page["has_more"]), (&json!("page"), &json!(false)));
    let bucket = page["data"].as_array().unwrap().iter().find(|bucket| bucket["start_time"] == today).unwrap();
    assert_eq!((&bucket["object"], &bucket["end_time"]), (&json!("bucket"), &json!(today + day)));
    let rows = bucket["results"].as_array().unwrap();
    let row = |model: &str| rows.iter().find(|row| row["model"] == model).unwrap();
    assert_eq!((&row("flux/dev")["images"], &row("flux/dev")["num_model_requests"]), (&json!(4), &json!(2)));
    assert_eq!(row("flux/dev")["amount_usd"], "0.100000000");
    assert_eq!(row("flux-realism")["amount_usd"], "0.070000000");
    assert_eq!(row("flux/dev")["project_id"], Value::Null);
    let by_key = results(&usage(&house, &format!("start_time={today}&group_by=api_key_id,size")).await);
    assert_eq!(by_key.len(), 1);
    assert_eq!((&by_key[0]["images"], &by_key[0]["size"]), (&json!(6), &json!("1024x1024")));
    assert!(by_key[0]["api_key_id"].as_str().unwrap().starts_with("key_"));
    let filtered = results(&usage(&house, &format!("start_time={today}&models=flux-realism")).await);
    assert_eq!(filtered[0]["images"], 2);
    for query in [
        "",
        "start_time=soon",
        "start_time=1&bucket_width=2d",
        "start_time=1&group_by=colour",
        "start_time=5&end_time=5",
    ] {
        let answer =
            house.gateway.admin(Method::GET, &format!("/v1/organization/usage/images?{query}")).send().await.unwrap();
        read(answer, StatusCode::BAD_REQUEST).await;
    }
}

async fn a_markup_is_on_the_price_and_not_on_the_cost(kind: Database) {
    let house = House::with(kind, std::time::Duration::ZERO, &[("IMAGEGATE_MARKUP", "1.3")]).await;
    let answer = house.gateway.generate(&t_rex()).send().await.unwrap();
    assert_eq!(answer.headers()["x-imagegate-cost-usd"], "0.045500000");
    let row = house.gateway.generations().await.remove(0);
    assert_eq!((&row["price_usd"], &row["cost_usd"]), (&json!("0.045500000"), &json!("0.035000000")));
}

async fn a_provider_that_is_away_costs_nothing(kind: Database) {
    let fal = start_sandbox(std::time::Duration::ZERO);
    let database = crate::support::TestDatabase::new(kind).await;
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    fal.stop().await;
    let answer = gateway.generate(&t_rex()).send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    let body = read(answer, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(body["error"]["code"], "service_unavailable");
    let row = gateway.generations().await.remove(0);
    assert_eq!(
        (&row["state"], &row["price_usd"], &row["cost_usd"]),
        (&json!("failed"), &json!("0.000000000"), &json!("0.000000000"))
    );
}

async fn the_list_is_paged_newest_first_and_filtered(kind: Database) {
    let house = House::new(kind).await;
    for user in ["a", "b", "a"] {
        let body = json!({"model": "flux/dev", "prompt": "x", "user": user});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let all = house.gateway.generations().await;
    let first = house.gateway.admin(Method::GET, "/admin/v1/generations?limit=2").send().await.unwrap();
    let first = read(first, StatusCode::OK).await;
    assert_eq!((&first["has_more"], &first["data"][0]["id"]), (&json!(true), &all[0]["id"]));
    let after = first["last_id"].as_str().unwrap();
    let second =
        house.gateway.admin(Method::GET, &format!("/admin/v1/generations?limit=2&after={after}")).send().await.unwrap();
    let second = read(second, StatusCode::OK).await;
    assert_eq!((&second["has_more"], &second["data"][0]["id"]), (&json!(false), &all[2]["id"]));
    let of_a = house.gateway.admin(Method::GET, "/admin/v1/generations?user=a&state=succeeded").send().await.unwrap();
    assert_eq!(read(of_a, StatusCode::OK).await["data"].as_array().unwrap().len(), 2);
    let none = house.gateway.admin(Method::GET, "/admin/v1/generations?state=expired").send().await.unwrap();
    let none = read(none, StatusCode::OK).await;
    assert_eq!((&none["data"], &none["first_id"]), (&json!([]), &Value::Null));
    let wrong = house.gateway.admin(Method::GET, "/admin/v1/generations?state=sleeping").send().await.unwrap();
    read(wrong, StatusCode::BAD_REQUEST).await;
}

async fn no_key_and_no_prompt_is_in_the_log_or_the_database(kind: Database) {
    let house = House::with(kind, std::time::Duration::ZERO, &[("IMAGEGATE_LOG", "debug")]).await;
    let body = json!({"model": "flux/dev", "prompt": "the-secret-prompt"});
    read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    let refused = json!({"model": "flux/dev", "prompt": "the-secret-prompt", "n": 9});
    read(house.gateway.generate(&refused).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    let wrong =
        client().get(format!("{}/v1/images/generations", house.gateway.base)).bearer_auth("the-wrong-secret-key");
    read(wrong.send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
    let log = house.gateway.log();
    assert!(log.contains("\"request\""), "nothing was logged: {log}");
    for secret in ["the-secret-prompt", "the-wrong-secret-key", PROJECT_KEY, crate::support::ADMIN_KEY, "test:test"] {
        assert!(!log.contains(secret), "`{secret}` is in the log");
    }
    if kind == Database::Sqlite {
        let file = house.database.url.strip_prefix("sqlite://").unwrap();
        for file in [file.to_owned(), format!("{file}-wal")] {
            let bytes = std::fs::read(file).unwrap();
            for secret in ["the-secret-prompt", PROJECT_KEY] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "`{secret}` is in the database");
            }
        }
    }
}
