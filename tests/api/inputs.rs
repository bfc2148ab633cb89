//! Input images: links and small images travel inside the request, large ones through fal's storage, bad ones nowhere.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use crate::support::{Database, House, on_both_databases};

on_both_databases!(
    a_large_image_is_uploaded_first_and_a_small_one_travels_along,
    what_is_no_image_is_refused_by_name_before_anything_is_booked,
);

/// An image of noise, so that it does not shrink.
fn picture(side: u32, format: ImageFormat) -> String {
    let mut number = 1_u32;
    let noise = RgbImage::from_fn(side, side, |_, _| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(number >> 24) as u8, (number >> 16) as u8, (number >> 8) as u8])
    });
    let mut file = Cursor::new(Vec::new());
    noise.write_to(&mut file, format).unwrap();
    format!("data:{};base64,{}", format.to_mime_type(), STANDARD.encode(file.into_inner()))
}

fn wish(images: &[String]) -> Value {
    json!({"model": "omnigen-v2", "prompt": "a", "image_size": "square", "input_image_urls": images})
}

async fn a_large_image_is_uploaded_first_and_a_small_one_travels_along(kind: Database) {
    let house = House::new(kind).await;
    let link = "https://example.com/a.png".to_owned();
    let (status, body) = house.ask(&wish(&[picture(32, ImageFormat::Png), link.clone()])).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(house.fal_state().await["uploads"].as_u64(), Some(0));
    let large = picture(512, ImageFormat::Png);
    assert!(large.len() > imagegate::providers::fal::UPLOADED_ABOVE);
    let (status, body) = house.ask(&wish(&[large, link])).await;
    assert_eq!(status, 201, "{body}");
    // The stand-in refuses an input that was announced and has not come, so the upload was used.
    assert_eq!(house.fal_state().await["uploads"], 1);
}

async fn what_is_no_image_is_refused_by_name_before_anything_is_booked(kind: Database) {
    let house = House::new(kind).await;
    let good = picture(32, ImageFormat::Jpeg);
    let text = format!("data:image/png;base64,{}", STANDARD.encode("this is a letter"));
    let truncated = picture(32, ImageFormat::Png)[..42].to_owned();
    for bad in [text, truncated] {
        let (status, body) = house.ask(&wish(&[good.clone(), bad])).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!("input_image_urls.1")), "{body}");
        assert_eq!(body["error"]["data"].as_array().unwrap().len(), 1);
    }
    let huge = format!("data:image/gif;base64,{}", STANDARD.encode(b"GIF89a\xff\xff\xff\xff\x00\x00\x00"));
    let (status, body) = house.ask(&wish(&[huge])).await;
    assert_eq!((status, &body["error"]["data"][0]["code"]), (400, &json!("too_big")), "{body}");
    assert!(house.gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["submits"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fals_storage_a_large_image_is_not_submitted_and_free() {
    let house = House::with(Database::Sqlite, Duration::ZERO, &[]).await;
    house.misbehave(json!({"at": "storage", "do": {"status": 500}})).await;
    let (status, body) = house.ask(&wish(&[picture(512, ImageFormat::Jpeg)])).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("service_unavailable")), "{body}");
    assert_eq!(house.fal_state().await["submits"], json!({}));
    assert_eq!(house.gateway.generations().await[0]["price_usd"], "0.000000000");
}
