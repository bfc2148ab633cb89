//! Paths of other APIs, which clients call here by mistake: each is answered with where images are made.
//!
//! Only what the 404 says depends on this table; nothing is permitted or refused by it.

use serde_json::json;

use crate::http::{Code, Problem, short_path};

/// How a path is known, without `/v1`.
enum Known {
    /// By its first segments.
    Begins(&'static str),
    /// By how it ends, below anything.
    Ends(&'static str),
}
use Known::{Begins, Ends};

/// Where images are made.
const MAKE: &str = "images are made by `POST /v1/images/generations` with `model` and `prompt`";
/// Where they are edited.
const EDIT: &str = "to change an image, send it with a `prompt` to `POST /v1/images/edits`";

/// Paths, whose they are, and what to do instead; the first that fits counts.
const PATHS: &[(Known, &str, &str)] = &[
    (Begins("/images/variations"), "OpenAI's variations", EDIT),
    (Begins("/chat"), "a chat API", MAKE),
    (Begins("/responses"), "OpenAI's Responses API", MAKE),
    (Begins("/completions"), "a text API", MAKE),
    (Begins("/complete"), "Anthropic's text API", MAKE),
    (Begins("/messages"), "Anthropic's Messages API", MAKE),
    (Begins("/embeddings"), "an embeddings API", MAKE),
    (Begins("/rerank"), "a reranking API", MAKE),
    (Begins("/moderations"), "OpenAI's Moderations API", MAKE),
    (Begins("/audio"), "an audio API", MAKE),
    (Begins("/tts"), "an audio API", MAKE),
    (Begins("/stt"), "an audio API", MAKE),
    (Begins("/video"), "a video API", MAKE),
    (Begins("/videos"), "a video API", MAKE),
    (Begins("/realtime"), "OpenAI's Realtime API", MAKE),
    (Begins("/batches"), "OpenAI's Batch API", MAKE),
    (Begins("/fine_tuning"), "OpenAI's fine-tuning API", MAKE),
    (Begins("/threads"), "OpenAI's Assistants API", MAKE),
    (Begins("/vector_stores"), "OpenAI's vector stores", MAKE),
    (Begins("/openai/deployments"), "Azure's deployments", MAKE),
    (Begins("/openai"), "Azure's OpenAI API", MAKE),
    (Begins("/image/generations"), "another image API", MAKE),
    (Begins("/image/edits"), "another image API", EDIT),
    (Begins("/v2beta/stable-image/generate"), "Stability AI's image API", MAKE),
    (Begins("/v2beta"), "Stability AI's image API", EDIT),
    (Begins("/generation"), "Stability AI's image API", MAKE),
    (Begins("/engines"), "Stability AI's or OpenAI's old API", MAKE),
    (Begins("/predictions"), "Replicate's API", MAKE),
    (Begins("/deployments"), "Replicate's API", MAKE),
    (Ends("/predictions"), "Replicate's API", MAKE),
    (Begins("/ideogram-v3"), "Ideogram's API", MAKE),
    (Begins("/generate"), "Ideogram's API", MAKE),
    (Begins("/remix"), "Ideogram's API", EDIT),
    (Begins("/reframe"), "Ideogram's API", EDIT),
    (Begins("/edit"), "Ideogram's API", EDIT),
    (Begins("/flux-pro"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-pro-1.0-fill"), "Black Forest Labs' API", EDIT),
    (Begins("/flux-pro-1.1"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-pro-1.1-ultra"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-dev"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-kontext-pro"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-kontext-max"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-2-pro"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-2-flex"), "Black Forest Labs' API", MAKE),
    (Begins("/flux-2-max"), "Black Forest Labs' API", MAKE),
    (
        Begins("/get_result"),
        "Black Forest Labs' API",
        "`GET /v1/images/generations/{id}` returns an image that was made",
    ),
    (Ends(":generateContent"), "Google's API", MAKE),
    (Ends(":streamGenerateContent"), "Google's API", MAKE),
    (Ends(":generateImages"), "Google's API", MAKE),
    (Ends(":predict"), "Google's API", MAKE),
    (Ends(":predictLongRunning"), "Google's API", MAKE),
    (Ends(":embedContent"), "Google's API", MAKE),
    (Begins("/v1beta"), "Google's API", MAKE),
    (Begins("/v2/generate"), "AI/ML API's video and audio", MAKE),
    (Begins("/v2/video"), "AI/ML API's video and audio", MAKE),
    (Begins("/sdapi"), "Stable Diffusion web UI's API", MAKE),
    (Begins("/prompt"), "ComfyUI's API", MAKE),
    (Begins("/api/prompt"), "ComfyUI's API", MAKE),
    (Begins("/images/generate"), "another image API", MAKE),
    (Begins("/images/edit"), "another image API", EDIT),
    (Begins("/text-to-image"), "another image API", MAKE),
    (Begins("/v1/images"), "a base address with `/v1` twice", MAKE),
    (Begins("/inference"), "Fireworks' API", MAKE),
    (Begins("/api/generate"), "Ollama's API", MAKE),
    (Begins("/api/chat"), "Ollama's API", MAKE),
    (Begins("/api/rest"), "Leonardo's API", MAKE),
    (Begins("/api/v1/services/aigc"), "Alibaba's API", MAKE),
    (Begins("/dream-machine"), "Luma's API", MAKE),
    (Begins("/images/upscale"), "another image API", EDIT),
    (Begins("/images/inpaint"), "another image API", EDIT),
    (Begins("/recraft"), "Recraft's API", MAKE),
    (Begins("/styles"), "Recraft's API", MAKE),
    (Begins("/image_generation"), "MiniMax's API", MAKE),
    (Begins("/mj"), "Midjourney's proxies", MAKE),
    (Begins("/imagine"), "Midjourney's proxies", MAKE),
    (Begins("/text2image"), "another image API", MAKE),
    (Begins("/services/aigc"), "Alibaba's API", MAKE),
    (Begins("/api/v1/images"), "OpenRouter's API", MAKE),
    (Begins("/api/v1/chat"), "OpenRouter's API", MAKE),
    (Begins("/api/v3/images"), "Volcengine's API", MAKE),
    (Begins("/api/paas"), "Zhipu's API", MAKE),
    (Begins("/v3/async"), "Novita's API", MAKE),
    (Ends("/invoke"), "Amazon Bedrock's API", MAKE),
    (Begins("/invocations"), "Amazon SageMaker's API", MAKE),
    (Begins("/fal-ai"), "fal's own host", MAKE),
    (Begins("/uploads"), "OpenAI's uploads", "send files to `POST /v1/files`"),
];

/// The answer to a path of another API; `None` for any other.
pub fn foreign_path(path: &str) -> Option<Problem> {
    let inner = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let is_known = |known: &Known| match known {
        Begins(start) => inner.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        Ends(end) => inner.ends_with(end),
    };
    let (_, whose, instead) = PATHS.iter().find(|(known, ..)| is_known(known))?;
    let message = format!("`{}` belongs to {whose}, which this gateway does not have; {instead}", short_path(path));
    let data =
        json!({"make_images": "/v1/images/generations", "edit_images": "/v1/images/edits", "models": "/v1/models"});
    Some(Problem::new(Code::NotFound, message).data(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_other_apis_are_known_with_and_without_the_version() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1/images/variations",
            "/v1/flux-pro-1.1",
            "/v2beta/stable-image/generate/core",
            "/v1beta/models/imagen-4:predict",
            "/v1/models/gemini:generateContent",
            "/v1/models/stability-ai/sdxl/predictions",
            "/v1/v1/images/generations",
        ] {
            assert!(foreign_path(path).is_some(), "{path}");
        }
        for path in ["/", "/v1", "/v1/images", "/v1/images/generations", "/v1/models/flux-pro", "/chatter", "/v2/usage"]
        {
            assert!(foreign_path(path).is_none(), "{path}");
        }
    }
}
