// Vercel's AI SDK with `@ai-sdk/openai-compatible`, unchanged. GATEWAY and KEY say where and who; prints one line of JSON
// with what was seen.
const { generateImage, APICallError } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");

const { GATEWAY, KEY } = process.env;
const seen = {};
const kinds = (images) => images.map((image) => [image.mediaType, image.uint8Array.length > 1000]);

async function main() {
  const gateway = createOpenAICompatible({ name: "imagegate", apiKey: KEY, baseURL: `${GATEWAY}/v1` });
  const model = gateway.imageModel("flux/dev");

  const plain = await generateImage({ model, prompt: "a red fox" });
  seen.plain = kinds(plain.images);
  seen.model = plain.responses[0].modelId;

  const two = await generateImage({ model, prompt: "a red fox", n: 2, size: "1024x1024" });
  seen.two = kinds(two.images);
  seen.warnings = two.warnings.map((warning) => warning.type);

  // What only the model has travels as the provider's own options.
  const options = await generateImage({
    model,
    prompt: "a red fox",
    providerOptions: { imagegate: { output_format: "png", seed: 7, response_format: "b64_json" } },
  });
  seen.options = kinds(options.images);

  const failed = async (wish) => {
    try {
      await generateImage({ maxRetries: 0, ...wish });
      return null;
    } catch (error) {
      return APICallError.isInstance(error) ? [error.statusCode, error.isRetryable, error.message] : String(error);
    }
  };
  seen.size = await failed({ model, prompt: "a red fox", size: "1000x1000" });
  seen.unknown = (await failed({ model: gateway.imageModel("flux/none"), prompt: "a" })).slice(0, 2);
  const stranger = createOpenAICompatible({ name: "imagegate", apiKey: "nobody's", baseURL: `${GATEWAY}/v1` });
  seen.stranger = (await failed({ model: stranger.imageModel("flux/dev"), prompt: "a" })).slice(0, 2);

  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
