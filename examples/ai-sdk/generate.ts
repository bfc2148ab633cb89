// Vercel's AI SDK. Model parameters that it has no word for go into `providerOptions`.
import { writeFile } from "node:fs/promises";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateImage } from "ai";

const url = process.env.IMAGEGATE_URL ?? "http://127.0.0.1:8080";
const imagegate = createOpenAICompatible({
  name: "imagegate",
  baseURL: `${url}/v1`,
  apiKey: process.env.IMAGEGATE_KEY,
});

const { images, responses } = await generateImage({
  model: imagegate.imageModel("flux/dev"),
  prompt: "A lighthouse at dusk",
  size: "1024x768",
  n: 2,
  providerOptions: { imagegate: { seed: 7, output_format: "png" } },
});
for (const [index, image] of images.entries()) {
  await writeFile(`lighthouse-${index + 1}.png`, image.uint8Array);
}
console.log(`two images cost ${responses[0].headers?.["x-imagegate-cost-usd"]} USD`);

try {
  await generateImage({ model: imagegate.imageModel("flux/dev"), prompt: "A lighthouse at dusk", size: "1000x1000" });
} catch (error) {
  if (!APICallError.isInstance(error)) throw error;
  console.log(error.statusCode, error.message);
}
