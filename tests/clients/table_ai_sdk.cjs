// Vercel's AI SDK with the provider that PROVIDER names, unchanged, in the table of clients.
const { generateImage, APICallError } = require("ai");
const { createFal } = require("@ai-sdk/fal");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { GATEWAY, KEY, PROMPT, picture, run } = require("./table.cjs");

const apiKey = KEY;
const providers = {
  fal: () => createFal({ apiKey, baseURL: `${GATEWAY}/fal/run` }),
  openai: () => createOpenAI({ apiKey, baseURL: `${GATEWAY}/v1` }),
  "openai-compatible": () => createOpenAICompatible({ name: "imagegate", apiKey, baseURL: `${GATEWAY}/v1` }),
};
const { PROVIDER } = process.env;
const provider = providers[PROVIDER]();
const isFal = PROVIDER === "fal";
const flux = isFal ? "fal-ai/flux/dev" : "flux/dev";
// `@ai-sdk/openai` reads `b64_json` alone and cannot ask an edit for it: forms have it unasked.
const editor = isFal ? "fal-ai/flux-2/edit" : "blackforestlabs/flux-2-edit";

const image = async (id, wanted) => {
  const { image, warnings } = await generateImage({ model: provider.imageModel(id), prompt: PROMPT, ...wanted });
  return { image: image.base64, warnings: warnings.map((warning) => warning.feature ?? warning.message) };
};

const cases = { size: () => image(flux, { size: "1536x1024" }) };
if (isFal) cases.ratio = () => image(flux, { aspectRatio: "9:16" });
if (PROVIDER === "openai-compatible") {
  cases.ratio = () => image(flux, { providerOptions: { imagegate: { aspect_ratio: "9:16" } } });
}
cases.edit = () =>
  image(editor, {
    prompt: { text: PROMPT, images: [picture()] },
    size: "512x768",
    providerOptions: { fal: { useMultipleImages: true } },
  });
cases.error = () => image(flux, { size: "1000x1000" });

run(cases, (error) => [APICallError.isInstance(error) ? error.statusCode : null, error.message]);
