//! How long a request takes from its bytes to fal's body and its price, whether the number of models matters, and how
//! long its answer takes to write.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop where it stands")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use imagegate::api::{ImageAnswer, image_views};
use imagegate::catalogue::{Catalogue, Strictness, parse};
use imagegate::domain::{Fixed, GenerationId, Money, Timestamp};
use imagegate::gateway::Finished;
use imagegate::ledger::FinalState;
use imagegate::providers::Delivery;
use imagegate::providers::fal::translate;

const SMALL: &str = r#"{"model": "flux/dev", "prompt": "A T-Rex relaxing on a beach, lying on a sun lounger."}"#;

/// Every field of the model with the most of them, nested ones included.
const LARGE: &str = r#"{
  "model": "stable-diffusion-v35-large",
  "prompt": "A dreamlike Japanese garden in perpetual twilight, bathed in bioluminescent cherry blossoms that glow.",
  "negative_prompt": "text, people, low quality",
  "steps": 40,
  "seed": 18446744073709551615,
  "guidance": 7.5,
  "n": 4,
  "enable_safety_checker": true,
  "output_format": "png",
  "size": "1280x960",
  "controlnet": {
    "path": "https://example.com/canny.safetensors", "control_image_url": "https://example.com/canny.png",
    "conditioning_scale": 0.8, "start_percentage": 0.1, "end_percentage": 0.9
  },
  "loras": [
    { "path": "https://example.com/oil.safetensors", "scale": 0.7 },
    { "path": "https://example.com/ink.safetensors", "scale": 1.25 }
  ],
  "ip_adapter": {
    "path": "https://example.com/ip.safetensors", "image_encoder_path": "https://example.com/encoder",
    "image_url": "https://example.com/style.png", "scale": 0.6
  },
  "user": "alice",
  "response_format": "b64_json",
  "quality": "hd"
}"#;

/// The work of one request.
fn serve(catalogue: &Catalogue, request: &str) -> usize {
    let wish = parse(request.as_bytes()).unwrap();
    let order = catalogue.order(&wish, Strictness::Lenient).unwrap();
    let quote = order.terms(Fixed::ONE).unwrap().quote().unwrap();
    black_box(quote);
    translate::body(&order).len()
}

/// A catalogue of this many models: the two that are asked for, and copies of the built-in files under other ids.
fn of_size(count: usize) -> Catalogue {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalogue/models");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let names = ["flux-dev.toml", "stable-diffusion-v35-large.toml"];
    let mut files: Vec<(String, String)> = names.iter().map(|name| ((*name).to_owned(), read(name))).collect();
    let all = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let copied: Vec<String> = all.map(|name| read(&name)).collect();
    for (number, text) in (2..count).zip(copied.iter().cycle()) {
        // Without its examples and other ids, which name the original.
        let (_, rest) = text.split_once("\nname = ").unwrap();
        let (rest, _) = rest.split_once("[[examples]]").unwrap();
        files.push((format!("copy-{number}.toml"), format!("id = \"copy-{number}\"\nname = {rest}")));
    }
    let catalogue = Catalogue::of_files(&files).unwrap();
    assert_eq!(catalogue.models().count(), count);
    catalogue
}

fn requests(criterion: &mut Criterion) {
    let catalogues =
        [("built-in", Catalogue::built_in().unwrap()), ("10 models", of_size(10)), ("1000 models", of_size(1000))];
    for (name, request) in [("small", SMALL), ("large", LARGE)] {
        let mut group = criterion.benchmark_group(name);
        for (size, catalogue) in &catalogues {
            group.bench_function(*size, |bencher| bencher.iter(|| serve(catalogue, black_box(request))));
        }
        group.finish();
    }
}

/// What a model of fal's delivers, as its answer reads.
const DELIVERED: &str = r#"{
  "images": [{
    "url": "https://v3b.fal.media/files/b/0a84799e/1kYzoFE6V9Jx2Rfmmn_4M.jpg", "width": 1024, "height": 768,
    "content_type": "image/jpeg", "file_name": "1kYzoFE6V9Jx2Rfmmn_4M.jpg", "file_size": 187263
  }],
  "timings": {"inference": 0.371259557}, "seed": 18446744073709551615, "has_nsfw_concepts": [false],
  "prompt": "A T-Rex relaxing on a beach, lying on a sun lounger."
}"#;

/// From what was delivered to the bytes of the answer: one image by its address, four of a megabyte in base64.
fn answers(criterion: &mut Criterion) {
    let one: Delivery = serde_json::from_str(DELIVERED).unwrap();
    let mut four = one.clone();
    four.images = vec![one.images[0].clone(); 4];
    let finished = Finished {
        id: GenerationId::from_uuid(uuid::Uuid::from_u128(1)),
        state: FinalState::Succeeded,
        created_at: Timestamp::from_seconds(1_793_000_000),
        model: "flux/dev".into(),
        delivery: None,
        failure: None,
        price: Money::ZERO,
        changes: None,
    };
    let request = parse(br#"{"model": "flux/dev", "prompt": "a"}"#).unwrap();
    let order = Catalogue::built_in().unwrap().order(&request, Strictness::Lenient).unwrap();
    let mut group = criterion.benchmark_group("answer");
    for (name, delivery) in [("one image", &one), ("four images", &four)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let images = image_views(black_box(&delivery.images), str::to_owned);
                serde_json::to_string(&ImageAnswer::of(&finished, images, delivery, &order)).unwrap().len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests, answers);
criterion_main!(benches);
