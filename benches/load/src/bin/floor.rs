//! The floor: the least that an actix-web + reqwest + sqlx program must do for the same promise as the gateway.
//!
//! `floor ADDRESS FAL KEY [DATABASE_URL]`: authenticates by digest, translates, makes the same three calls to fal's
//! queue (submit, status, result), and writes the same three durable steps (hold, fal's id, settle), each awaited and
//! committed together with what has gathered. Without a database it writes nothing. With `--one-call` before the rest
//! it makes one call, which waits for the image, and writes hold and settle: what a crash then loses is lost. No limits, no checks of parameters,
//! no ledger, no recovery: what the gateway costs beyond it is what those cost.

use std::collections::HashMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The most steps that one commit takes.
const LARGEST_BATCH: usize = 512;

enum Step {
    Hold { model: String, price: i64 },
    Submitted { fal_id: String },
    Settle { price: i64, answer: String },
}

struct Write {
    id: Uuid,
    step: Step,
    done: oneshot::Sender<()>,
}

struct Floor {
    client: reqwest::Client,
    fal: String,
    keys: HashMap<[u8; 32], u64>,
    writer: Option<mpsc::Sender<Write>>,
    one_call: bool,
}

#[derive(Deserialize)]
struct Wish {
    model: String,
    prompt: String,
    num_images: Option<u32>,
    image_size: Option<Size>,
}

#[derive(Serialize, Deserialize)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct FalWish<'w> {
    prompt: &'w str,
    num_images: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size: Option<Size>,
}

#[derive(Deserialize)]
struct Submitted {
    request_id: String,
    status_url: String,
    response_url: String,
}

#[derive(Deserialize)]
struct State {
    status: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    url: String,
    width: u32,
    height: u32,
    content_type: String,
}

#[derive(Deserialize)]
struct Delivery {
    images: Vec<Image>,
    seed: u64,
}

#[derive(Serialize)]
struct Made<'m> {
    created: u64,
    model: &'m str,
    images: &'m [Image],
    data: &'m [Image],
    seed: u64,
}

impl Floor {
    async fn write(&self, id: Uuid, step: Step) -> Option<()> {
        let Some(writer) = &self.writer else { return Some(()) };
        let (done, written) = oneshot::channel();
        writer.send(Write { id, step, done }).await.ok()?;
        written.await.ok()
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Option<web::Bytes> {
        let answer = request.header("authorization", "Key bench:bench").send().await.ok()?;
        answer.status().is_success().then_some(())?;
        answer.bytes().await.ok()
    }

    async fn make(&self, wish: &Wish) -> Option<String> {
        let id = Uuid::now_v7();
        self.write(id, Step::Hold { model: wish.model.clone(), price: 3_000_000 }).await?;
        let size = wish.image_size.as_ref().map(|size| Size { width: size.width, height: size.height });
        let fal_wish = FalWish { prompt: &wish.prompt, num_images: wish.num_images.unwrap_or(1), image_size: size };
        let body = serde_json::to_vec(&fal_wish).ok()?;
        let delivery = if self.one_call {
            let run = self.client.post(format!("{}/run/{}", self.fal, wish.model));
            self.call(run.header("content-type", "application/json").body(body)).await?
        } else {
            self.by_queue(id, wish, body).await?
        };
        let delivery: Delivery = serde_json::from_slice(&delivery).ok()?;
        let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        let images = &delivery.images;
        let made = Made { created, model: &wish.model, images, data: images, seed: delivery.seed };
        let answer = serde_json::to_string(&made).ok()?;
        self.write(id, Step::Settle { price: 3_000_000, answer: answer.clone() }).await?;
        Some(answer)
    }

    async fn by_queue(&self, id: Uuid, wish: &Wish, body: Vec<u8>) -> Option<web::Bytes> {
        let submit = self.client.post(format!("{}/{}", self.fal, wish.model));
        let submitted = self.call(submit.header("content-type", "application/json").body(body)).await?;
        let submitted: Submitted = serde_json::from_slice(&submitted).ok()?;
        self.write(id, Step::Submitted { fal_id: submitted.request_id }).await?;
        loop {
            let state: State =
                serde_json::from_slice(&self.call(self.client.get(&submitted.status_url)).await?).ok()?;
            if state.status == "COMPLETED" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.call(self.client.get(&submitted.response_url)).await
    }
}

async fn generate(floor: web::Data<Floor>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let key = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let digest: [u8; 32] =
        Sha256::digest(key.and_then(|key| key.strip_prefix("Bearer ")).unwrap_or_default().as_bytes()).into();
    if !floor.keys.contains_key(&digest) {
        return HttpResponse::Unauthorized().finish();
    }
    let Ok(wish) = serde_json::from_slice::<Wish>(&body) else { return HttpResponse::BadRequest().finish() };
    match floor.make(&wish).await {
        Some(answer) => HttpResponse::build(StatusCode::CREATED).content_type("application/json").body(answer),
        None => HttpResponse::BadGateway().finish(),
    }
}

/// Commits together what has gathered, in one statement: one commit, one flush of the log.
async fn write_all(database: String, mut writes: mpsc::Receiver<Write>) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(&database).await?;
    // As the gateway plans: by key, also while the table is so young that its statistics would advise to read it whole with
    // each batch.
    sqlx::raw_sql(
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off;
         SET enable_mergejoin = off; SET jit = off;
         CREATE TABLE requests (id UUID PRIMARY KEY, account BIGINT NOT NULL, model TEXT NOT NULL, price BIGINT NOT NULL,
             state TEXT NOT NULL, fal_id TEXT, answer TEXT, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
         CREATE INDEX requests_by_account ON requests (account, created_at)",
    )
    .execute(&mut connection)
    .await?;
    let mut batch = Vec::with_capacity(LARGEST_BATCH);
    while writes.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
        let (mut held, mut models, mut holds) = (vec![], vec![], vec![]);
        let (mut submitted, mut fal_ids) = (vec![], vec![]);
        let (mut settled, mut prices, mut answers) = (vec![], vec![], vec![]);
        let mut callers = Vec::with_capacity(batch.len());
        for Write { id, step, done } in batch.drain(..) {
            match step {
                Step::Hold { model, price } => {
                    held.push(id);
                    models.push(model);
                    holds.push(price);
                }
                Step::Submitted { fal_id } => {
                    submitted.push(id);
                    fal_ids.push(fal_id);
                }
                Step::Settle { price, answer } => {
                    settled.push(id);
                    prices.push(price);
                    answers.push(answer);
                }
            }
            callers.push(done);
        }
        sqlx::query(
            "WITH held AS (INSERT INTO requests (id, account, model, price, state)
                 SELECT id, 1, model, price, 'held' FROM UNNEST($1::uuid[], $2::text[], $3::bigint[]) AS h (id, model, price)),
             submitted AS (UPDATE requests r SET state = 'submitted', fal_id = s.fal_id
                 FROM UNNEST($4::uuid[], $5::text[]) AS s (id, fal_id) WHERE r.id = s.id)
             UPDATE requests r SET state = 'settled', price = s.price, answer = s.answer
             FROM UNNEST($6::uuid[], $7::bigint[], $8::text[]) AS s (id, price, answer) WHERE r.id = s.id",
        )
        .bind(held)
        .bind(models)
        .bind(holds)
        .bind(submitted)
        .bind(fal_ids)
        .bind(settled)
        .bind(prices)
        .bind(answers)
        .execute(&mut connection)
        .await?;
        for caller in callers {
            let _ = caller.send(());
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let one_call = arguments.first().is_some_and(|first| first == "--one-call");
    arguments.drain(..usize::from(one_call));
    let [address, fal, key, database @ ..] = &arguments[..] else {
        return Err(std::io::Error::other("usage: floor [--one-call] ADDRESS FAL KEY [DATABASE_URL]"));
    };
    let writer = database.first().cloned().map(|database| {
        let (writer, writes) = mpsc::channel(16_384);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(write_all(database, writes)).expect("the database takes every batch");
        });
        writer
    });
    let keys = HashMap::from([(Sha256::digest(key.as_bytes()).into(), 1)]);
    let (address, fal) = (address.clone(), fal.clone());
    actix_web::rt::System::new().block_on(async move {
        HttpServer::new(move || {
            let client = reqwest::Client::builder()
                .no_proxy()
                .tcp_nodelay(true)
                .pool_max_idle_per_host(1024)
                .build()
                .expect("a client needs nothing");
            let floor = Floor { client, fal: fal.clone(), keys: keys.clone(), writer: writer.clone(), one_call };
            App::new()
                .app_data(web::Data::new(floor))
                .route("/v1/images/generations", web::post().to(generate))
                .route("/readyz", web::get().to(HttpResponse::Ok))
        })
        .workers(std::thread::available_parallelism().map_or(2, usize::from))
        .backlog(4096)
        .bind(address)?
        .run()
        .await
    })
}
