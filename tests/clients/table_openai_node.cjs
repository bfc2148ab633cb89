// OpenAI's Node SDK, unchanged, in the table of clients.
const OpenAI = require("openai");
const { GATEWAY, KEY, PROMPT, picture, run } = require("./table.cjs");

const client = new OpenAI.OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: KEY });
const image = (answer) => ({ image: answer.data[0].b64_json ?? answer.data[0].url });
const generate = async (wanted) => image(await client.images.generate({ model: "flux/dev", prompt: PROMPT, ...wanted }));

const cases = {
  size: () => generate({ size: "1536x1024", response_format: "b64_json" }),
  ratio: () => generate({ aspect_ratio: "9:16" }),
  edit: async () =>
    image(
      await client.images.edit({
        model: "blackforestlabs/flux-2-edit",
        prompt: PROMPT,
        image: await OpenAI.toFile(picture(), "picture.png", { type: "image/png" }),
        size: "512x768",
      }),
    ),
  stream: async () => {
    const events = [];
    const wanted = { model: "flux/dev", prompt: PROMPT, size: "512x768", stream: true, partial_images: 1 };
    for await (const event of await client.images.generate(wanted)) events.push(event);
    const last = events.findLast((event) => event.type === "image_generation.completed");
    return { events: events.length, image: last.b64_json };
  },
  error: () => generate({ size: "1000x1000" }),
};

run(cases, (error) => [error.status ?? null, error.message]);
