//! The companies that make the images.

pub mod fal;
