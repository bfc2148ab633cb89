//! The shapes that a generation is answered in: the superset that every client generation can read.

use std::sync::Arc;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponseBuilder};
use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use super::Services;
use super::embedded::Embedded;
use super::openai_facts::OpenAiFacts;
use super::places::{Embedding, embed, project_of_request, public, public_base};
use crate::catalogue::{Adaptation, AnswerForm, Order, ResponseFormat, Switches};
use crate::domain::{ApiKeyId, Fixed, GenerationId, Money, ProjectId, Timestamp};
use crate::gateway::{Changes, Finished, cost_drift};
use crate::http::Problem;
use crate::ledger::{AttemptOutcome, AttemptRecord, CostSource, GenerationRecord, GenerationState};
use crate::providers::{Delivery, Image, LogLine, Standing};

/// One image of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    /// Where the image can be fetched; a data URI if `sync_mode` was asked for.
    #[schema(example = "https://v3b.fal.media/files/b/0a84799e/1kYzoFE6V9Jx2Rfmmn_4M.jpg")]
    pub url: String,
    /// The image itself in base64, if `response_format` is `b64_json`; that is the default for GPT image models and for edits by
    /// form.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub b64_json: Option<String>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1472)]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 512)]
    pub height: Option<u32>,
    /// MIME type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "image/jpeg")]
    pub content_type: Option<String>,
    /// The provider's name for the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub file_name: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub file_size: Option<u64>,
    /// Why the image is not embedded although that was asked for: it was made and charged, and `url` leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub embedding_error: Option<String>,
    /// The first bytes of the file, where it is embedded.
    #[serde(skip)]
    pub file_begins: Vec<u8>,
}

/// Images that an answer has in two places and memory once.
#[derive(Debug, Clone)]
pub struct SharedImages(Arc<[ImageView]>);

impl Serialize for SharedImages {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// What a finished generation produced. Fields that the model does not produce are left out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Produced {
    /// The images.
    #[schema(value_type = Vec<ImageView>)]
    pub images: SharedImages,
    /// The same images, where OpenAI's clients look for them.
    #[schema(value_type = Vec<ImageView>)]
    pub data: SharedImages,
    /// Seconds that each step took.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Object)]
    pub timings: Option<Map<String, Value>>,
    /// The seed that was used: a whole number of up to 64 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = u64, example = 4_134_117_142_u64)]
    pub seed: Option<Number>,
    /// For each image, whether the safety checker blackened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_nsfw_concepts: Option<Vec<bool>>,
    /// The prompt as the model used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub prompt: Option<String>,
    /// A text that the model wrote beside the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
}

/// A finished generation, readable by every generation of AIML's clients and by OpenAI's SDKs.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageAnswer {
    /// The generation's id; it can be fetched under it later.
    pub id: String,
    /// When it was reserved, in Unix seconds.
    #[schema(example = 1_793_000_000)]
    pub created: i64,
    /// The model that made the images.
    #[schema(example = "flux-realism")]
    pub model: String,
    #[serde(flatten)]
    #[schema(inline)]
    produced: Produced,
    /// How many images the model counts, where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub num_images: Option<u64>,
    /// What OpenAI's answers say beside the images, for its GPT image models.
    #[serde(flatten)]
    #[schema(inline)]
    openai: Option<OpenAiFacts>,
    /// What it cost, and what of the request counted for nothing.
    pub meta: Meta,
}

impl ImageAnswer {
    /// The answer about what was delivered.
    #[must_use]
    pub fn of(finished: &Finished, images: Vec<ImageView>, delivery: &Delivery, order: &Order) -> Self {
        let is_gpt_image = order.switches.answer_form == AnswerForm::GptImage;
        let openai = is_gpt_image.then(|| OpenAiFacts::new(order, &images));
        Self {
            openai,
            id: finished.id.to_string(),
            created: finished.created_at.seconds(),
            model: finished.model.clone(),
            produced: Produced::of(images, delivery, order.prompt()),
            num_images: delivery.num_images,
            meta: Meta::new(finished.price, finished.changes.clone().unwrap_or_else(|| Changes::of_order(order))),
        }
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &[ImageView] {
        &self.produced.images.0
    }

    /// All but the images: model, seed, timings, safety and cost.
    #[must_use]
    pub fn facts(&self) -> Map<String, Value> {
        let mut facts = match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        for images in ["images", "data"] {
            facts.shift_remove(images);
        }
        facts
    }
}

/// What it cost, and what of the request counted for nothing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Meta {
    /// What it cost.
    pub usage: MetaUsage,
    /// Fields of the request that counted for nothing.
    pub ignored: Vec<String>,
    /// Fields that another value stands for, such as pixels of which only the ratio counts.
    pub adapted: Vec<Adaptation>,
}

impl Meta {
    fn new(price: Money, changes: Changes) -> Self {
        let Changes { ignored, adapted } = changes;
        Self { usage: MetaUsage::of(price), ignored, adapted }
    }
}

/// What of a request counted for nothing, and what was adapted.
#[derive(Debug, Serialize, ToSchema)]
pub struct GenerationMeta {
    /// Fields of the request that counted for nothing.
    pub ignored: Vec<String>,
    /// Fields that another value stands for, such as pixels of which only the ratio counts.
    pub adapted: Vec<Adaptation>,
}

impl From<Changes> for GenerationMeta {
    fn from(Changes { ignored, adapted }: Changes) -> Self {
        Self { ignored, adapted }
    }
}

/// What a generation cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetaUsage {
    /// In AIML's credits: 2,000,000 are one US dollar.
    #[schema(example = 70000)]
    pub credits_used: i64,
    /// In US dollars, as AIML's clients read it: a float, so only near.
    #[schema(example = 0.035)]
    pub usd_spent: f64,
    /// In US dollars, exactly, with nine places.
    #[schema(example = "0.035000000")]
    pub price_usd: String,
}

impl MetaUsage {
    fn of(price: Money) -> Self {
        Self { credits_used: price.credits(), usd_spent: price.approximate_usd(), price_usd: price.to_string() }
    }
}

/// A generation, wherever it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Generation)]
pub struct GenerationView {
    /// The generation's id.
    pub id: String,
    /// Always `image.generation`.
    #[schema(example = "image.generation")]
    pub object: &'static str,
    /// Where it stands; `queued` and `running` are open.
    #[schema(value_type = StateText)]
    pub state: &'static str,
    /// When it was reserved, in Unix seconds.
    pub created_at: i64,
    /// When it ended, in Unix seconds; absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub settled_at: Option<i64>,
    /// Since when its prompt, parameters and images are gone, in Unix seconds: erased on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub erased_at: Option<i64>,
    /// How many requests are before it, while it waits at the provider and the provider tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 2)]
    pub queue_position: Option<u32>,
    /// What the model has written by now, while it runs and where one generation is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub logs: Option<Vec<LogLineView>>,
    /// The project that pays.
    pub project_id: String,
    /// The key that was used.
    pub api_key_id: String,
    /// The `user` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user: Option<String>,
    /// The model.
    pub model: String,
    /// The name that was asked for, if it is another than the model's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "dall-e-3")]
    pub requested_model: Option<String>,
    /// How many images were delivered; while it is open, how many were asked for.
    pub num_images: u32,
    /// Megapixels that were charged.
    pub megapixels: String,
    /// What the project pays, in US dollars with nine places; while it is open, what is held.
    pub price_usd: String,
    /// What of the request counted for nothing, and what was adapted; empty once its content is erased.
    pub meta: GenerationMeta,
    /// What was delivered, to the project it belongs to.
    #[serde(flatten)]
    #[schema(inline)]
    produced: Option<Produced>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Object)]
    pub error: Option<Value>,
    /// What operators see beside it.
    #[serde(flatten)]
    #[schema(inline)]
    operator: Option<OperatorView>,
}

/// A line that a model has written while it runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LogLineView {
    /// What was written.
    #[schema(example = " 50%")]
    message: String,
    /// When, as RFC 3339.
    timestamp: String,
    /// How grave.
    #[schema(example = "INFO")]
    level: String,
    /// By whom.
    #[schema(example = "USER")]
    source: String,
}

impl From<LogLine> for LogLineView {
    fn from(LogLine { message, timestamp, level, source }: LogLine) -> Self {
        Self { message, timestamp, level, source }
    }
}

/// Where a generation stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GenerationState)]
pub enum StateText {
    /// Waits at the provider.
    Queued,
    /// Runs at the provider.
    Running,
    /// Was delivered and charged.
    Succeeded,
    /// Failed, free.
    Failed,
    /// Was cancelled, free.
    Cancelled,
    /// Came to no end in time, free.
    Expired,
}

/// What operators see beside it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorView {
    /// The provider's endpoint.
    pub endpoint: String,
    /// fal's id for the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fal_request_id: Option<String>,
    /// What the provider charges us, in US dollars with nine places.
    pub cost_usd: String,
    /// `billed` by the provider, or `computed` by the catalogue.
    pub cost_source: &'static str,
    /// What the provider billed beyond what the catalogue computed (below zero: less), where the two differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "0.025000000")]
    pub drift_usd: Option<String>,
    /// Every submit that the provider took, where one generation is asked for; fallbacks are numbered on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub attempts: Option<Vec<AttemptView>>,
}

/// A submit that the provider took.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    /// 1 for the first model, 2 for the first fallback, and so on.
    #[schema(example = 1)]
    pub n: u32,
    /// The provider's endpoint.
    #[schema(example = "fal-ai/flux/dev")]
    pub endpoint: String,
    /// The label of the key that was used.
    pub credential: String,
    /// fal's id for the request.
    pub fal_request_id: String,
    /// How it ended; absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcome: Option<&'static str>,
}

impl GenerationView {
    /// With how it stands at the provider, while it is open.
    #[must_use]
    pub fn standing(mut self, standing: Standing) -> Self {
        let state = if standing.runs { GenerationState::Running } else { GenerationState::Queued };
        self.state = state.as_str();
        self.queue_position = standing.queue_position.filter(|_| !standing.runs);
        self.logs = standing.runs.then(|| standing.logs.into_iter().map(LogLineView::from).collect());
        self
    }

    /// With the submits that the provider took, for operators.
    #[must_use]
    pub fn with_attempts(mut self, attempts: &[AttemptRecord]) -> Self {
        let view = |attempt: &AttemptRecord| AttemptView {
            n: attempt.n,
            endpoint: attempt.endpoint.clone(),
            credential: attempt.credential.clone(),
            fal_request_id: attempt.provider_request_id.clone(),
            outcome: attempt.outcome.map(AttemptOutcome::as_str),
        };
        if let Some(operator) = &mut self.operator {
            operator.attempts = Some(attempts.iter().map(view).collect());
        }
        self
    }

    /// As its own project sees it, which reaches the gateway at `base`; with the answer once it has succeeded.
    #[must_use]
    pub fn for_project(services: &Services, base: &str, record: &GenerationRecord) -> Self {
        let stored = record.outcome.as_ref().and_then(|outcome| outcome.answer.as_deref());
        let delivery: Option<Delivery> = stored.and_then(|text| serde_json::from_str(text).ok());
        let produced = delivery.map(|delivery| produce(services, base, &delivery, None));
        Self { produced, ..Self::bare(record) }
    }

    /// As operators see it.
    #[must_use]
    pub fn for_operator(record: &GenerationRecord) -> Self {
        let outcome = record.outcome.as_ref();
        let operator = OperatorView {
            endpoint: record.endpoint.clone(),
            fal_request_id: record.attempt.as_ref().map(|attempt| attempt.provider_request_id.clone()),
            cost_usd: outcome.map_or(Money::ZERO, |outcome| outcome.cost).to_string(),
            cost_source: outcome.map_or(CostSource::Computed, |outcome| outcome.cost_source).as_str(),
            drift_usd: cost_drift(record).map(|drift| drift.to_string()),
            attempts: None,
        };
        Self { operator: Some(operator), ..Self::bare(record) }
    }

    fn bare(record: &GenerationRecord) -> Self {
        let (project_id, api_key_id): (ProjectId, ApiKeyId) = (record.project_id, record.api_key_id);
        let outcome = record.outcome.as_ref();
        let error = outcome.and_then(|outcome| outcome.error.as_deref());
        Self {
            id: record.id.to_string(),
            object: "image.generation",
            state: record.state.as_str(),
            created_at: record.created_at.seconds(),
            settled_at: outcome.map(|outcome| outcome.settled_at.seconds()),
            erased_at: record.erased_at.map(Timestamp::seconds),
            queue_position: None,
            logs: None,
            project_id: project_id.to_string(),
            api_key_id: api_key_id.to_string(),
            user: record.user.clone(),
            model: record.model.clone(),
            requested_model: record.requested_model.clone(),
            num_images: outcome.map_or(record.num_images, |outcome| outcome.images),
            megapixels: outcome.map_or(Fixed::ZERO, |outcome| outcome.megapixels).to_string(),
            price_usd: outcome.map_or(record.hold, |outcome| outcome.price).to_string(),
            meta: Changes::of_record(record).into(),
            produced: None,
            error: error.and_then(|text| serde_json::from_str(text).ok()),
            operator: None,
        }
    }
}

/// The body of a finished generation, with what `response_format` and `sync_mode` ask for: marks, and the images to be written
/// in their place.
pub async fn image_answer(
    services: &Services,
    request: &HttpRequest,
    finished: &Finished,
    delivery: &Delivery,
    switches: &Switches,
    order: &Order,
) -> Result<(ImageAnswer, Embedded), Problem> {
    let base = public_base(services, request);
    let mut images = image_views(&delivery.images, |url| public(services, &base, url));
    let how =
        Embedding { as_base64: switches.response_format == ResponseFormat::B64Json, as_data_uris: switches.sync_mode };
    let deadline = services.gateway.deadline_of(&order.model, finished.created_at);
    let embedded = embed(services, project_of_request(request), deadline, delivery, &mut images, how).await;
    Ok((ImageAnswer::of(finished, images, delivery, order), embedded))
}

/// The headers that tell what a generation cost and which it is, ours and AIML's.
pub fn put_cost_headers(response: &mut HttpResponseBuilder, id: GenerationId, price: Money) {
    let texts = [
        ("x-imagegate-generation-id", id.to_string()),
        ("x-inference-id", id.to_string()),
        ("x-imagegate-cost-usd", price.to_string()),
        // What a LiteLLM in front books.
        ("x-litellm-response-cost", price.to_string()),
        ("x-aimlapi-usd-spent", price.to_string()),
        ("x-aimlapi-credits-used", price.credits().to_string()),
    ];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.insert_header((HeaderName::from_static(name), value));
        }
    }
}

impl Produced {
    pub(super) fn of(images: Vec<ImageView>, delivery: &Delivery, prompt: Option<&str>) -> Self {
        let images = SharedImages(images.into());
        let used = delivery.prompt.as_deref().filter(|used| !used.is_empty());
        Self {
            data: images.clone(),
            images,
            timings: delivery.timings.clone(),
            seed: delivery.seed.clone(),
            has_nsfw_concepts: delivery.has_nsfw_concepts.clone(),
            prompt: used.or(prompt).map(str::to_owned),
            description: delivery.description.clone(),
        }
    }
}

/// What was delivered as it is shown to who reaches the gateway at `base`.
pub(super) fn produce(services: &Services, base: &str, delivery: &Delivery, prompt: Option<&str>) -> Produced {
    Produced::of(image_views(&delivery.images, |url| public(services, base, url)), delivery, prompt)
}

/// Images as they are shown; `address` tells where a client finds a file.
pub fn image_views(images: &[Image], address: impl Fn(&str) -> String) -> Vec<ImageView> {
    let view = |image: &Image| ImageView {
        url: address(&image.url),
        b64_json: None,
        width: image.width,
        height: image.height,
        content_type: image.content_type.clone(),
        file_name: image.file_name.clone(),
        file_size: image.file_size,
        embedding_error: None,
        file_begins: Vec::new(),
    };
    images.iter().map(view).collect()
}
