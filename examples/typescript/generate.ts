// An image as it comes to be, with OpenAI's SDK, and what a wrong request is told.
import { writeFile } from "node:fs/promises";
import OpenAI from "openai";

const url = process.env.IMAGEGATE_URL ?? "http://127.0.0.1:8080";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.IMAGEGATE_KEY });

const stream = await client.images.generate({
  model: "flux/dev",
  prompt: "A lighthouse at dusk",
  size: "1024x1024",
  stream: true,
  partial_images: 2,
});
for await (const event of stream) {
  if (event.type === "image_generation.partial_image") {
    await writeFile(`unfinished-${event.partial_image_index}.jpg`, event.b64_json, "base64");
  } else if (event.type === "image_generation.completed") {
    await writeFile("lighthouse.jpg", event.b64_json, "base64");
  } else if ((event as { type: string }).type === "image_generation.settled") {
    const settled = event as unknown as { meta: { usage: { price_usd: string } } };
    console.log(`lighthouse.jpg cost ${settled.meta.usage.price_usd} USD`);
  }
}

try {
  await client.images.generate({ model: "flux/dev", prompt: "A lighthouse at dusk", size: "1000x1000" as "1024x1024" });
} catch (error) {
  if (!(error instanceof OpenAI.BadRequestError)) throw error;
  console.log(error.code, error.param, error.message);
}
