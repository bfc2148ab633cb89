//! What a request may ask of the gateway itself, whatever the model.

use super::model::Model;

/// The switches of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Switches {
    /// How the images come.
    pub response_format: ResponseFormat,
    /// The caller's own name for its user, kept with the generation.
    pub user: Option<String>,
    /// Answer by server-sent events.
    pub stream: bool,
    /// How many unfinished images to show while streaming, 0 to 3.
    pub partial_images: Option<u32>,
    /// Answer at once and work in the background.
    pub background: bool,
    /// Call this `http(s)` URL when it is done.
    pub webhook_url: Option<String>,
    /// Models to try when this one is proven to refuse, by their ids. An empty list is none at all, nothing is those of
    /// the model's file.
    pub fallbacks: Option<Vec<String>>,
    /// Answer with data URIs. Ours to do; never sent to the provider.
    pub sync_mode: bool,
    /// What the answer says beside the images.
    pub answer_form: AnswerForm,
}

impl Switches {
    /// The switches of a model where a request gives none.
    pub(super) fn of_model(model: &Model) -> Self {
        if model.output.gpt_image { Self::of_gpt_image() } else { Self::default() }
    }

    /// The switches of `OpenAI`'s GPT image models, and of an alias that stands for one.
    pub(super) fn of_gpt_image() -> Self {
        let (response_format, answer_form) = (ResponseFormat::B64Json, AnswerForm::GptImage);
        Self { response_format, answer_form, ..Self::default() }
    }

    /// Answers in the form that was promised by `first`, the order that this one's is a fallback of.
    pub fn answer_like(&mut self, first: &Self) {
        (self.response_format, self.answer_form) = (first.response_format, first.answer_form);
    }
}

/// How the images come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResponseFormat {
    /// As a URL.
    #[default]
    Url,
    /// As base64 in the answer.
    B64Json,
}

/// What an answer says beside the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnswerForm {
    /// What every model's does.
    #[default]
    Usual,
    /// Also what OpenAI's says of its GPT image models.
    GptImage,
}

impl ResponseFormat {
    /// As clients write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::B64Json => "b64_json",
        }
    }
}

/// The fields that every model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    ResponseFormat,
    User,
    Stream,
    PartialImages,
    Background,
    WebhookUrl,
    Fallbacks,
    SyncMode,
}

impl Switch {
    /// Every switch with the name of its field.
    pub(super) const ALL: [(&'static str, Self); 8] = [
        ("response_format", Self::ResponseFormat),
        ("user", Self::User),
        ("stream", Self::Stream),
        ("partial_images", Self::PartialImages),
        ("background", Self::Background),
        ("webhook_url", Self::WebhookUrl),
        ("fallbacks", Self::Fallbacks),
        ("sync_mode", Self::SyncMode),
    ];
}
