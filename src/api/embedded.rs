//! Images inside answers. An answer is made with a mark in place of each image; the image is written as base64 while the answer
//! is sent, so that it takes memory once, as the file that it is.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use uuid::Uuid;

/// How much of a file is written at once, in bytes: a multiple of three, so that the pieces of base64 join.
const PIECE: usize = 48 * 1024;

/// The images of one answer, each under its mark. A mark is a random id, so that no text of a client is one.
#[derive(Debug, Default)]
pub struct Embedded(Vec<(String, Bytes)>);

impl Embedded {
    /// Adds an image and returns its mark, which stands for its base64.
    pub fn add(&mut self, id: Uuid, file: Bytes) -> String {
        let mark = id.simple().to_string();
        self.0.push((mark.clone(), file));
        mark
    }

    /// The text with the images in place of their marks.
    #[must_use]
    pub fn fill(&self, text: String) -> FilledText {
        let text = Bytes::from(text);
        let mut marks: Vec<(usize, &str, &Bytes)> = Vec::new();
        if let Ok(searched) = std::str::from_utf8(&text) {
            for (mark, file) in &self.0 {
                marks.extend(searched.match_indices(mark.as_str()).map(|(at, _)| (at, mark.as_str(), file)));
            }
        }
        marks.sort_unstable_by_key(|(at, ..)| *at);
        let (mut pieces, mut from) = (VecDeque::new(), 0);
        for (at, mark, file) in marks {
            pieces.push_back(Piece::Text(text.slice(from..at)));
            pieces.push_back(Piece::File(file.clone(), 0));
            from = at + mark.len();
        }
        pieces.push_back(Piece::Text(text.slice(from..)));
        FilledText(pieces)
    }
}

/// A text with images in it, piece by piece.
#[derive(Debug)]
pub struct FilledText(VecDeque<Piece>);

#[derive(Debug)]
enum Piece {
    Text(Bytes),
    /// A file, and how much of it is written.
    File(Bytes, usize),
}

impl Piece {
    /// In bytes, as it is written.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::File(file, written) => (file.len() - written).div_ceil(3) * 4,
        }
    }
}

impl FilledText {
    /// How many bytes are left of it.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.iter().map(|piece| piece.length() as u64).sum()
    }
}

impl Iterator for FilledText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.front_mut()? {
                Piece::File(file, written) if *written < file.len() => {
                    let end = (*written + PIECE).min(file.len());
                    let text = STANDARD.encode(&file[*written..end]);
                    *written = end;
                    return Some(Bytes::from(text));
                }
                Piece::Text(text) if !text.is_empty() => return Some(std::mem::take(text)),
                Piece::File(..) | Piece::Text(_) => {
                    self.0.pop_front();
                }
            }
        }
    }
}

impl MessageBody for FilledText {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length())
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.next().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MemoryBudget, MemoryUse};
    use crate::providers::with_memory;

    fn file(budget: &MemoryBudget, bytes: &[u8]) -> Bytes {
        let memory = budget.reserve(MemoryUse::Output, None, bytes.len() as u64).unwrap();
        with_memory(Bytes::copy_from_slice(bytes), memory)
    }

    #[test]
    fn images_stand_where_their_marks_were_and_are_written_in_pieces() {
        let budget = MemoryBudget::new(10_000_000, 10);
        for length in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2] {
            let large: Vec<u8> = (0..length).map(|number| u8::try_from(number % 251).unwrap()).collect();
            let mut embedded = Embedded::default();
            let first = embedded.add(Uuid::from_u128(1), file(&budget, &large));
            let second = embedded.add(Uuid::from_u128(2), file(&budget, b"second"));
            let text = format!("[{first:?}, \"ä\", {second:?}, {first:?}]");
            let filled = embedded.fill(text);
            drop(embedded);
            let announced = filled.length();
            let pieces: Vec<Bytes> = filled.collect();
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE / 3 * 4));
            let written = String::from_utf8(pieces.concat()).unwrap();
            let (first, second) = (STANDARD.encode(&large), STANDARD.encode("second"));
            assert_eq!(written, format!("[{first:?}, \"ä\", {second:?}, {first:?}]"));
            assert_eq!(written.len() as u64, announced);
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn a_text_without_images_is_as_it_is() {
        let filled = Embedded::default().fill("{}".to_owned());
        assert_eq!(filled.size(), BodySize::Sized(2));
        assert_eq!(filled.collect::<Vec<_>>(), ["{}"]);
        assert_eq!(Embedded::default().fill(String::new()).count(), 0);
    }
}
