// fal's own JavaScript client, unchanged, in the table of clients: `proxyUrl` leads to the gateway.
const { fal } = require("@fal-ai/client");
const { GATEWAY, KEY, PROMPT, picture, run } = require("./table.cjs");

fal.config({ proxyUrl: { url: `${GATEWAY}/fal/proxy`, when: "always" }, credentials: KEY });
const ask = async (endpoint, wanted) => {
  const { data } = await fal.subscribe(endpoint, { input: { prompt: PROMPT, ...wanted }, pollInterval: 50 });
  return { image: data.images[0].url };
};

const cases = {
  size: () => ask("fal-ai/flux/dev", { image_size: { width: 1536, height: 1024 } }),
  ratio: () => ask("fal-ai/nano-banana", { aspect_ratio: "9:16" }),
  // The client uploads a Blob by itself and sends its address.
  edit: () =>
    ask("fal-ai/flux-2/edit", {
      image_urls: [new Blob([picture()], { type: "image/png" })],
      image_size: { width: 512, height: 768 },
    }),
  stream: async () => {
    const input = { prompt: PROMPT, image_size: { width: 512, height: 768 } };
    const stream = await fal.stream("fal-ai/flux/dev", { input });
    let events = 0;
    for await (const _ of stream) events += 1;
    return { events, image: (await stream.done()).images[0].url };
  },
  error: () => ask("fal-ai/flux/dev", { image_size: { width: 1000, height: 1000 } }),
};

run(cases, (error) => [error.status ?? null, error.body?.detail?.[0]?.msg ?? error.message]);
