// fal's own client with an imagegate key: the same code as against fal, with another configuration.
import { writeFile } from "node:fs/promises";
import { fal } from "@fal-ai/client";

const url = process.env.IMAGEGATE_URL ?? "http://127.0.0.1:8080";
fal.config({ proxyUrl: { url: `${url}/fal/proxy`, when: "always" }, credentials: process.env.IMAGEGATE_KEY });

const { data, requestId } = await fal.subscribe("fal-ai/flux/dev", {
  input: { prompt: "A lighthouse at dusk", image_size: "landscape_16_9" },
  logs: true,
  onQueueUpdate: (update) => {
    const logs = "logs" in update ? (update.logs ?? []) : [];
    console.log(update.status, logs.at(-1)?.message ?? "");
  },
});
const image = await fetch(data.images[0].url);
await writeFile("lighthouse.jpg", new Uint8Array(await image.arrayBuffer()));
console.log(`lighthouse.jpg is generation ${requestId}`);
