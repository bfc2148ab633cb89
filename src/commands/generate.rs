//! `imagegate generate`: images through a running gateway, with a progress bar.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use imagegate::config::Config;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Client;
use serde_json::{Map, Value, json};

use super::{Failure, Output};

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
    /// Where to put the image; of several (`-p num_images=2`) the second goes beside it as `NAME-2.jpg`, and so on
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

/// Makes the images and writes them to files.
pub async fn run(config: &Config, arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let key = arguments.key.clone().or_else(|| config.keys.bootstrap.as_ref().map(|key| key.expose().to_owned()));
    let key = key.ok_or("there is no key: give one with --key, or set IMAGEGATE_BOOTSTRAP_KEY")?;
    let base = arguments.url.clone().or_else(|| config.http.public_url.clone());
    let base = base.unwrap_or_else(|| format!("http://{}", config.http.bind));
    check_output(&arguments.output)?;
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
    bar.set_message("fetching");
    let mut files = Vec::new();
    for (place, image) in generation["images"].as_array().into_iter().flatten().enumerate() {
        let path = numbered(&arguments.output, place + 1);
        // It is paid for: whoever cannot have it here must know where it is.
        let written = keep(&client, image, &path).await.map_err(|fault| {
            format!(
                "{fault}; generation {id} is done and paid for: its images are at {base}/v1/images/generations/{id}"
            )
        })?;
        files.push((path, written));
    }
    bar.finish_and_clear();
    if files.is_empty() {
        return Err(format!("generation {id} has no image").into());
    }
    let price = generation["price_usd"].as_str().unwrap_or("?");
    let lines: Vec<String> = files.iter().map(|(path, bytes)| format!("{}  {bytes} bytes", path.display())).collect();
    let named: Vec<Value> =
        files.iter().map(|(path, bytes)| json!({"path": path.display().to_string(), "bytes": bytes})).collect();
    let told = json!({"id": id, "model": generation["model"], "price_usd": generation["price_usd"], "files": named});
    output.say(&told, &format!("{}  {price} USD  {id}", lines.join("\n")))
}

/// Finds out whether the file can be written, before anything is paid for.
fn check_output(path: &Path) -> Result<(), Failure> {
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let named = |fault| format!("`{}` cannot be written: {fault}; name a file in a folder that exists", path.display());
    opened.map_err(named)?;
    if is_new {
        std::fs::remove_file(path).map_err(named)?;
    }
    Ok(())
}

/// `out.jpg`, then `out-2.jpg`, `out-3.jpg`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) => path.with_file_name(format!("{stem}-{number}.{}", extension.to_string_lossy())),
        None => path.with_file_name(format!("{stem}-{number}")),
    }
}

/// Fetches one image and writes it; the number of its bytes.
async fn keep(client: &Client, image: &Value, path: &Path) -> Result<usize, Failure> {
    let url = image["url"].as_str().ok_or("the image has no address")?;
    let fetched = async { client.get(url).send().await?.error_for_status()?.bytes().await };
    let bytes = fetched.await.map_err(|fault| format!("the image `{}` cannot be fetched: {fault}", path.display()))?;
    let written = tokio::fs::write(path, &bytes).await;
    written.map_err(|fault| format!("`{}` cannot be written: {fault}", path.display()))?;
    Ok(bytes.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_images_are_numbered_beside_the_first() {
        let name = |path: &str, number| numbered(Path::new(path), number).display().to_string();
        assert_eq!((name("a/m.jpg", 1), name("a/m.jpg", 2)), ("a/m.jpg".to_owned(), "a/m-2.jpg".to_owned()));
        assert_eq!((name("m", 3), name("m.tar.gz", 2)), ("m-3".to_owned(), "m.tar-2.gz".to_owned()));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_out_and_one_that_can_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.jpg"), folder.path().join("old.jpg"));
        std::fs::write(&old, "kept").unwrap();
        check_output(&new).unwrap();
        check_output(&old).unwrap();
        assert!(!new.exists());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
        let refused = check_output(&folder.path().join("none/a.jpg")).unwrap_err().to_string();
        assert!(
            refused.contains("none/a.jpg` cannot be written") && refused.contains("folder that exists"),
            "{refused}"
        );
        assert!(check_output(folder.path()).is_err(), "a folder is no file");
    }
}
