// OpenAI's Node SDK where it loses patience and where it is too fast. GATEWAY and KEY say where and who; prints one line of
// JSON with what was seen.
const OpenAI = require("openai");

const { GATEWAY, KEY } = process.env;
const seen = {};
const client = (options) => new OpenAI.OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: KEY, ...options });

async function main() {
  // A run of eight seconds, of which each try waits for three.
  const impatient = client({ timeout: 3000, maxRetries: 5 });
  const { data, response } = await impatient.images.generate({ model: "flux-realism", prompt: "a red fox" }).withResponse();
  seen.images = data.data.length;
  seen.replayed = response.headers.get("idempotent-replayed");

  const fast = client({ maxRetries: 0 });
  const wish = { model: "flux/dev", prompt: "a red fox", size: "512x512" };
  await fast.images.generate(wish);
  const error = await fast.images.generate(wish).catch((error) => error);
  seen.limited = [error.constructor.name, error.status, error.code, error.type, Number(error.headers.get("retry-after")) > 0];
  seen.limit = [error.headers.get("x-ratelimit-limit-requests"), error.headers.get("x-ratelimit-remaining-requests")];

  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
