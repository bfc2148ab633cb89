// OpenAI's Node SDK, unchanged. GATEWAY and KEY say where and who, PICTURE is a PNG file; prints one line of JSON with what
// was seen.
const fs = require("node:fs");
const OpenAI = require("openai");

const { GATEWAY, KEY, PICTURE } = process.env;
const seen = {};
const client = new OpenAI.OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: KEY });
const WISH = { model: "flux/dev", prompt: "a red fox", size: "1024x1024" };

const failed = (call) =>
  call.then(
    () => null,
    (error) => [error.constructor.name, error.status, error.code, error.param, error.type, typeof error.requestID],
  );

async function main() {
  const answer = await client.images.generate({ ...WISH, n: 2, user: "ada", quality: "high", output_format: "png" });
  seen.generated = [typeof answer.created, answer.data.length, answer.data[0].url.endsWith(".png")];
  seen.requestId = typeof answer._request_id;

  const embedded = await client.images.generate({ ...WISH, response_format: "b64_json" });
  seen.embedded = Buffer.from(embedded.data[0].b64_json, "base64").subarray(0, 3).toString("hex");

  const { data, response } = await client.images.generate(WISH).withResponse();
  seen.price = [response.status, response.headers.get("x-imagegate-cost-usd"), data.meta.usage.price_usd];

  const picture = () => fs.createReadStream(PICTURE);
  const edited = await client.images.edit({ model: "flux/kontext-pro/image-to-image", image: picture(), prompt: "make it night" });
  seen.edited = edited.data.length;
  const several = await client.images.edit({
    model: "flux/kontext-pro/image-to-image",
    image: [picture(), picture()],
    prompt: "put them together",
  });
  seen.several = several.data.length;

  const events = [];
  const stream = await client.images.generate({ ...WISH, stream: true, partial_images: 2 });
  for await (const event of stream) events.push(event.type);
  seen.stream = [events.includes("image_generation.partial_image"), events.filter((type) => type.endsWith(".completed")).length];

  const once = { idempotencyKey: "one-of-a-kind", headers: { "Idempotency-Key": "one-of-a-kind" } };
  const [first, second] = [await client.images.generate(WISH, once), await client.images.generate(WISH, once)];
  seen.once = first.data[0].url === second.data[0].url;

  seen.size = await failed(client.images.generate({ ...WISH, size: "1000x1000" }));
  seen.unknown = await failed(client.images.generate({ ...WISH, model: "flux/none" }));
  const stranger = new OpenAI.OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: "nobody's" });
  seen.stranger = await failed(stranger.images.generate(WISH));

  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  seen.models = models.includes("flux/dev");

  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
