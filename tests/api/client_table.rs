//! The table of clients: each of them asks for a size, a ratio, an edit and a stream, and for something that is refused.
//! The pixels of the picture are compared with what was asked, the price with the catalogue's; an error is the client's own
//! and costs nothing. The programs are `tests/clients/table_*`. Each has a gateway of its own, whose stand-in draws.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::authority::authority;
use crate::clients::node;
use crate::support::tools::{client_file, last_line, tool};
use crate::support::{ADMIN_KEY, Database, Gateway, PROJECT_KEY, Start, TestDatabase, client_that_trusts, free_port};

/// What a case must give.
#[derive(Debug, Clone, Copy)]
pub enum Gives {
    /// A picture of exactly this width and height, for this price.
    Sides(u32, u32, &'static str),
    /// A picture of this shape, for this price.
    Ratio(u32, u32, &'static str),
    /// The client's own error, by its name, with its status and a part of its message.
    Error(&'static str, u16, &'static str),
    /// The client has no words for the case, and why.
    Cannot(&'static str),
}
use Gives::{Cannot, Error, Ratio, Sides};

/// What each client is tried with, in this order.
pub const CASES: [&str; 5] = ["size", "ratio", "edit", "stream", "error"];

/// A row of the table: a program of `tests/clients`, the provider that it is told to use, and what each case gives.
struct Row {
    file: &'static str,
    provider: &'static str,
    gives: [Gives; 5],
}

/// flux/dev: $0.025 for each megapixel, of which this has one and a half.
pub const SIZE: Gives = Sides(1536, 1024, "0.050000000");
/// flux/dev in 9:16 is its preset of 576x1024.
const FLUX_RATIO: Gives = Sides(576, 1024, "0.025000000");
const BANANA_RATIO: Gives = Ratio(9, 16, "0.039000000");
/// flux-2-edit: $0.012 for each megapixel that goes in and comes out, of which there is one each.
const EDIT: Gives = Sides(512, 768, "0.024000000");
const STREAM: Gives = Sides(512, 768, "0.025000000");
const REFUSED: &str = "multiple of 32";
const NO_STREAM: Gives = Cannot("its image calls end with one answer");

fn rows(client: &str) -> Row {
    let row = |file, provider, gives| Row { file, provider, gives };
    let openai = [SIZE, FLUX_RATIO, EDIT, STREAM, Error("BadRequestError", 400, REFUSED)];
    let fal = |error| [SIZE, BANANA_RATIO, EDIT, STREAM, error];
    let vercel = |ratio, status| [SIZE, ratio, EDIT, NO_STREAM, Error("APICallError", status, REFUSED)];
    let litellm = |ratio, edit, status| [SIZE, ratio, edit, NO_STREAM, Error("BadRequestError", status, REFUSED)];
    match client {
        "vercel_openai" => {
            row("table_ai_sdk.cjs", "openai", vercel(Cannot("`aspectRatio` is dropped, and other fields too"), 400))
        }
        "vercel_openai_compatible" => row("table_ai_sdk.cjs", "openai-compatible", vercel(FLUX_RATIO, 400)),
        "vercel_fal" => row("table_ai_sdk.cjs", "fal", vercel(FLUX_RATIO, 422)),
        "openai_node" => row("table_openai_node.cjs", "", openai),
        "openai_python" => row("table_openai_python.py", "", openai),
        "fal_javascript" => row("table_fal_javascript.cjs", "", fal(Error("ValidationError", 422, REFUSED))),
        "fal_python" => row("table_fal_python.py", "", fal(Error("FalClientHTTPError", 422, REFUSED))),
        "litellm_openai" => row("table_litellm.py", "openai", litellm(FLUX_RATIO, EDIT, 400)),
        "litellm_aiml" => {
            row("table_litellm.py", "aiml", litellm(FLUX_RATIO, Cannot("this provider of LiteLLM has no edits"), 400))
        }
        "litellm_fal" => row("table_litellm.py", "fal_ai", litellm(Ratio(9, 16, "0.060000000"), EDIT, 422)),
        "litellm_in_front" => row(
            "table_litellm_proxy.py",
            "",
            [SIZE, FLUX_RATIO, EDIT, Cannot("its proxy fails on streams of images, and asks again"), openai[4]],
        ),
        "langchain" => row(
            "table_langchain.py",
            "",
            [
                SIZE,
                Cannot("it takes `size` and no other field"),
                Cannot("it makes images only"),
                NO_STREAM,
                Error("BadRequestError", 400, REFUSED),
            ],
        ),
        other => panic!("no client is called {other}"),
    }
}

macro_rules! each_client {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() { gets_what_it_asks_for(rows(stringify!($name))).await; })+
    };
}

each_client!(
    vercel_openai,
    vercel_openai_compatible,
    vercel_fal,
    openai_node,
    openai_python,
    fal_javascript,
    fal_python,
    litellm_openai,
    litellm_aiml,
    litellm_fal,
    litellm_in_front,
    langchain,
);

async fn gets_what_it_asks_for(row: Row) {
    let database = TestDatabase::new(Database::Sqlite).await;
    let mut command = Command::new(match row.file.split('_').nth(1).unwrap() {
        _ if row.file.split('.').nth(1) == Some("cjs") => node(),
        "litellm.py" | "litellm" | "langchain.py" => tool("IMAGEGATE_TEST_AIML_PYTHON"),
        _ => tool("IMAGEGATE_TEST_PYTHON"),
    });
    // fal's client for Python speaks HTTPS alone.
    let gateway = if row.file == "table_fal_python.py" {
        behind_tls(&database, &mut command).await
    } else {
        settings(&database).run().await
    };
    let picture = database.folder().join("picture.png");
    image::RgbImage::from_pixel(64, 64, image::Rgb([200, 120, 40])).save(&picture).unwrap();
    command
        .arg(client_file(row.file))
        .env("NODE_PATH", tool("IMAGEGATE_TEST_NODE_MODULES"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GATEWAY", &gateway.base)
        .env("KEY", PROJECT_KEY)
        .env("PICTURE", &picture)
        .env("PROVIDER", row.provider)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let seen = last_line(&output, || gateway.log());
    check(&gateway, &row.gives, &seen).await;
}

pub fn settings(database: &TestDatabase) -> Start<'_> {
    let settings = vec![
        ("IMAGEGATE_ADMIN_KEY", ADMIN_KEY.to_owned()),
        ("IMAGEGATE_BOOTSTRAP_KEY", PROJECT_KEY.to_owned()),
        ("IMAGEGATE_SANDBOX_DELAY", "100ms".to_owned()),
    ];
    Start { database_url: &database.url, settings }
}

async fn behind_tls(database: &TestDatabase, command: &mut Command) -> Gateway {
    let authority = authority();
    let [file, certificate, key] = authority.files(database.folder());
    let host = format!("127.0.0.1:{}", free_port());
    let public = format!("https://{host}");
    let start = settings(database)
        .with("IMAGEGATE_BIND", &host)
        .with("IMAGEGATE_PUBLIC_URL", &public)
        .with("IMAGEGATE_TLS_CERT", certificate.to_str().unwrap())
        .with("IMAGEGATE_TLS_KEY", key.to_str().unwrap());
    let mut gateway = start.run().await;
    (gateway.base, gateway.client) = (public, client_that_trusts(&authority.pem));
    command
        .env("FAL_RUN_HOST", format!("{host}/fal/run"))
        .env("FAL_QUEUE_RUN_HOST", format!("{host}/fal/queue"))
        .env("FAL_KEY", PROJECT_KEY)
        .env("SSL_CERT_FILE", &file);
    gateway
}

/// Compares what a client has seen, and what the books say of it, with its row. Each case made one generation, in the order
/// of the cases; what was refused made none.
pub async fn check(gateway: &Gateway, gives: &[Gives; 5], seen: &Value) {
    let asked: Vec<&str> =
        CASES.iter().zip(gives).filter(|(_, gives)| !matches!(gives, Cannot(_))).map(|(case, _)| *case).collect();
    let told: Vec<&String> = seen.as_object().unwrap().keys().collect();
    assert_eq!(told, asked, "the table and the client differ in what it can ask for");
    let mut rows = gateway.generations().await;
    for (case, gives) in CASES.iter().zip(gives) {
        let seen = &seen[case];
        let (sides, price) = match *gives {
            Cannot(reason) => {
                assert!(!reason.is_empty(), "{case}");
                continue;
            }
            Error(kind, status, message) => {
                let error = &seen["error"];
                assert_eq!((&error[0], &error[1]), (&kind.into(), &status.into()), "{case}: {seen}");
                assert!(error[2].as_str().is_some_and(|text| text.contains(message)), "{case}: {seen}");
                continue;
            }
            Sides(_, _, price) | Ratio(_, _, price) => (pixels(gateway, case, seen).await, price),
        };
        match *gives {
            Sides(width, height, _) => assert_eq!(sides, (width, height), "{case}"),
            Ratio(across, down, _) => {
                assert!(has_shape(sides, across, down), "{case}: {sides:?} is not {across}:{down}");
            }
            Error(..) | Cannot(_) => {}
        }
        // A stream showed something before its end.
        assert!(*case != "stream" || seen["events"].as_u64() > Some(1), "{case}");
        let row = rows.pop().unwrap_or_else(|| panic!("{case} is not in the books"));
        assert_eq!((&row["state"], &row["price_usd"]), (&"succeeded".into(), &price.into()), "{case}: {row}");
    }
    assert!(rows.is_empty(), "this was not asked for, or was refused: {rows:?}");
}

/// The sides of the picture that a client ends with, by its file.
async fn pixels(gateway: &Gateway, case: &str, seen: &Value) -> (u32, u32) {
    let told = seen["image"].as_str().unwrap_or_else(|| panic!("{case}: {seen}\n{}", gateway.log()));
    let file = if told.starts_with("http") {
        gateway.client.get(told).send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap().to_vec()
    } else {
        STANDARD.decode(told).unwrap()
    };
    let picture = image::load_from_memory(&file).unwrap();
    (picture.width(), picture.height())
}

/// Whether sides have a shape, as near as sides in steps of 32 pixels come to it.
fn has_shape((width, height): (u32, u32), across: u32, down: u32) -> bool {
    (width * down).abs_diff(height * across) <= 32 * across.max(down)
}
