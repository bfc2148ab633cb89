//! Keeps what was delivered in the operator's storage, before it is settled, so that the answer in the books names it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::warn;

use super::wait::Outcome;
use crate::domain::{GenerationId, ProjectId};
use crate::providers::{Delivery, Image, Media};
use crate::storage::{KEPT, Storage, file_name};

/// Longest time for one image and one try.
const KEEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an image is tried.
const TRIES: u32 = 2;

/// Where delivered images are kept, and how they are fetched from the provider.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// The place.
    pub storage: Arc<Storage>,
    /// Fetches from the provider's hosts.
    pub media: Media,
}

impl Keeper {
    /// The same outcome with the images' addresses replaced by the names of what is kept. An image that cannot be kept
    /// stays where the provider has it: the customer pays for it and must get it.
    pub(super) async fn keep(&self, project: ProjectId, id: GenerationId, outcome: Outcome) -> Outcome {
        let Outcome::Delivered(delivery) = outcome else { return outcome };
        let generation = id.to_string();
        let images = delivery.images.iter().enumerate();
        let kept = join_all(images.map(|(index, image)| self.keep_one(project, &generation, index, image))).await;
        let mut delivery: Delivery = *delivery;
        for (image, name) in delivery.images.iter_mut().zip(kept) {
            if let Some(name) = name {
                image.url = format!("{KEPT}{name}");
            }
        }
        Outcome::Delivered(Box::new(delivery))
    }

    async fn keep_one(&self, project: ProjectId, generation: &str, index: usize, image: &Image) -> Option<String> {
        for number in 1..=TRIES {
            let reason = match tokio::time::timeout(KEEP_TIMEOUT, self.copy(project, generation, index, image)).await {
                Ok(Ok(name)) => return Some(name),
                Ok(Err(reason)) => reason,
                Err(_) => "no end in time".to_owned(),
            };
            warn!(generation, index, number, reason, "an image is not kept; its address is the provider's");
        }
        None
    }

    async fn copy(&self, project: ProjectId, generation: &str, index: usize, image: &Image) -> Result<String, String> {
        let bytes = self.media.fetch(Some(project), &image.url).await.map_err(|fault| fault.to_string())?;
        let name = file_name(generation, index, image.content_type.as_deref(), &bytes);
        self.storage.keep(&name, bytes).await.map_err(|fault| fault.to_string())?;
        Ok(name)
    }
}
