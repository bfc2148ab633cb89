//! `imagegate generate`: one image through a running gateway, with a progress bar.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use imagegate::config::Config;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Client;
use serde_json::{Map, Value, json};

use super::{Failure, print};

/// How often the gateway is asked how far it is.
const INTERVAL: Duration = Duration::from_millis(250);

/// What to make.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model
    #[arg(long)]
    model: String,
    /// What to draw
    #[arg(long)]
    prompt: String,
    /// Where to put the image
    #[arg(short, long)]
    output: PathBuf,
    /// A further parameter, as `name=value`; the value is JSON or else text
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// The gateway's address; `IMAGEGATE_PUBLIC_URL` or `IMAGEGATE_BIND` if not given
    #[arg(long)]
    url: Option<String>,
    /// A project's key; `IMAGEGATE_BOOTSTRAP_KEY` if not given
    #[arg(long)]
    key: Option<String>,
}

/// Makes the image and writes it to the file.
pub async fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let key = arguments.key.clone().or_else(|| config.keys.bootstrap.as_ref().map(|key| key.expose().to_owned()));
    let key = key.ok_or("there is no key: give one with --key, or set IMAGEGATE_BOOTSTRAP_KEY")?;
    let base = arguments.url.clone().or_else(|| config.http.public_url.clone());
    let base = base.unwrap_or_else(|| format!("http://{}", config.http.bind));
    let client = Client::builder().timeout(Duration::from_mins(2)).build()?;
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let begin = client.post(format!("{base}/v1/images/generations")).bearer_auth(&key).json(&body(arguments)?);
    let mut generation = read(begin).await?;
    let id = generation["id"].as_str().ok_or("the gateway's answer has no id")?.to_owned();
    while matches!(generation["state"].as_str(), Some("queued" | "running")) {
        bar.set_message(generation["state"].as_str().unwrap_or_default().to_owned());
        tokio::time::sleep(INTERVAL).await;
        generation = read(client.get(format!("{base}/v1/images/generations/{id}")).bearer_auth(&key)).await?;
    }
    if generation["state"] != "succeeded" {
        let reason = generation["error"]["message"].as_str().unwrap_or("no reason was given");
        return Err(
            format!("generation {id} has {}: {reason}", generation["state"].as_str().unwrap_or("failed")).into()
        );
    }
    let url = generation["images"][0]["url"].as_str().ok_or("the generation has no image")?;
    bar.set_message("fetching");
    let image = client.get(url).send().await?.error_for_status()?.bytes().await?;
    tokio::fs::write(&arguments.output, &image).await?;
    bar.finish_and_clear();
    let price = generation["price_usd"].as_str().unwrap_or("?");
    print(&format!("{}  {} bytes  {price} USD  {id}\n", arguments.output.display(), image.len()))
}

fn body(arguments: &Arguments) -> Result<Value, Failure> {
    let mut body = Map::new();
    for parameter in &arguments.parameters {
        let (name, value) =
            parameter.split_once('=').ok_or_else(|| format!("`{parameter}` is not of the form name=value"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        body.insert(name.to_owned(), value);
    }
    body.insert("model".to_owned(), json!(arguments.model));
    body.insert("prompt".to_owned(), json!(arguments.prompt));
    body.insert("background".to_owned(), json!(true));
    Ok(Value::Object(body))
}

/// An answer of the gateway, or its message if it refuses.
async fn read(request: reqwest::RequestBuilder) -> Result<Value, Failure> {
    let response =
        request.send().await.map_err(|fault| format!("the gateway does not answer: {}", fault.without_url()))?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let mut message = body["message"].as_str().unwrap_or("the gateway refused the request").to_owned();
    for problem in body["error"]["data"].as_array().into_iter().flatten() {
        let path: Vec<String> = problem["path"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        let _ = write!(message, "\n  {}: {}", path.join("."), problem["message"].as_str().unwrap_or_default());
    }
    Err(message.into())
}
