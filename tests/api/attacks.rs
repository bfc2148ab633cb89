//! Input that costs its sender little and would cost the gateway much.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compress, Compression, FlushCompress};
use futures_util::future::join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;

use crate::support::{Database, Gateway, House, on_both_databases, patience, read};

on_both_databases!(pictures_that_inflate_to_a_gigabyte_cost_neither_memory_nor_time);

const MODEL: &str = "flux/kontext-pro/image-to-image";

/// A PNG of 64×64 pixels whose colour profile has a thousand million bytes, compressed to one million.
fn picture_with_a_huge_profile() -> Vec<u8> {
    const HEADER_ENDS: usize = 33;
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 64).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();

    // Each block stands for itself after a full flush, so that one of them can be repeated.
    let (zeros, mut block) = (vec![0; 1_000_000], Vec::with_capacity(100_000));
    Compress::new(Compression::best(), false).compress_vec(&zeros, &mut block, FlushCompress::Full).unwrap();
    let mut profile = b"profile\0\0\x78\x9c".to_vec();
    for _ in 0..1000 {
        profile.extend(&block);
    }
    profile.extend([0x03, 0x00]);

    let mut chunk = b"iCCP".to_vec();
    chunk.extend(profile);
    let mut checksum = flate2::Crc::new();
    checksum.update(&chunk);
    let length = u32::try_from(chunk.len() - 4).unwrap();
    assert!(length < 2_000_000, "{length} bytes");
    [&png[..HEADER_ENDS], &length.to_be_bytes(), &chunk, &checksum.sum().to_be_bytes(), &png[HEADER_ENDS..]].concat()
}

/// The most memory that a process has had, in bytes.
pub fn peak_memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The longest time that `/healthz` takes while `work` goes on, and what the work gives. It is asked by a thread of its own, which
/// does not wait for the work's tasks.
pub async fn slowest_answer_during<T>(gateway: &Gateway, work: impl Future<Output = T>) -> (Duration, T) {
    let (address, over) = (gateway.base.strip_prefix("http://").unwrap().to_owned(), Arc::new(AtomicBool::new(false)));
    let is_over = over.clone();
    let asking = std::thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        while !is_over.load(Ordering::SeqCst) {
            let (started, mut answer) = (Instant::now(), String::new());
            let mut connection = TcpStream::connect(&address).unwrap();
            write!(connection, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            slowest = slowest.max(started.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        slowest
    });
    let done = work.await;
    over.store(true, Ordering::SeqCst);
    (tokio::task::spawn_blocking(move || asking.join().unwrap()).await.unwrap(), done)
}

async fn pictures_that_inflate_to_a_gigabyte_cost_neither_memory_nor_time(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let png = picture_with_a_huge_profile();
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(&png));
    let body = json!({"model": MODEL, "prompt": "make it night", "image_url": uri});
    let json = async |path: &str| gateway.project(Method::POST, path).json(&body).send().await.unwrap();
    let form = async |path: &str, form: Form| gateway.project(Method::POST, path).multipart(form).send().await.unwrap();
    let file = || Part::bytes(png.clone()).file_name("a.png");
    let edit = || Form::new().text("model", MODEL).text("prompt", "make it night").part("image", file());
    let sixteen = async {
        let mut answers: Vec<Response> = join_all((0..4).map(|_| json("/v1/images/generations/quote"))).await;
        answers.extend(join_all((0..16).map(|_| json("/v1/images/generations"))).await);
        answers.extend(join_all((0..16).map(|_| json("/v1/images/generations/quote"))).await);
        answers.extend(join_all((0..16).map(|_| form("/v1/images/edits", edit()))).await);
        answers.extend(join_all((0..16).map(|_| form("/v1/files", Form::new().part("file", file())))).await);
        answers
    };
    let before = peak_memory(gateway);
    let (slowest, answers) = slowest_answer_during(gateway, sixteen).await;
    for answer in answers {
        let refusal = read(answer, StatusCode::BAD_REQUEST).await;
        assert!(refusal["message"].as_str().unwrap().contains("colour profile"), "{refusal}");
    }
    // Inflated, a single one would take 1,000 MB, or 512 MB where a decoder stops at its own limit.
    let grown = peak_memory(gateway).saturating_sub(before);
    assert!(grown < 256 * 1024 * 1024, "{grown} bytes more");
    assert!(slowest < patience(Duration::from_secs(1)), "{slowest:?}");
    assert!(gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["uploads"].as_u64(), Some(0));
}
