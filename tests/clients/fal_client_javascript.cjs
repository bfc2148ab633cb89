// fal's own JavaScript client, unchanged, against the stand-in: through its proxy setting, as fal's documents show it.
// QUEUE_URL, RUN_URL and REST_URL say where the stand-in is; prints one line of JSON with what was seen.
const http = require("node:http");
const { fal, ValidationError, ApiError } = require("@fal-ai/client");

const ENDPOINT = "fal-ai/flux/dev";
const WISH = { prompt: "a red fox", image_size: "square", seed: 7 };
const HOSTS = {
  "queue.fal.run": process.env.QUEUE_URL,
  "fal.run": process.env.RUN_URL,
  "rest.fal.ai": process.env.REST_URL,
};
const seen = {};
const sizes = (data) => data.images.map((image) => [image.width, image.height]);

// The proxy of an application's own server: reads the target from its header and adds the key.
const proxy = http.createServer(async (request, response) => {
  const target = new URL(request.headers["x-fal-target-url"]);
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const headers = { authorization: "Key id:secret", accept: request.headers.accept ?? "*/*" };
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith("x-fal-") || name === "content-type") headers[name] = value;
  }
  const answer = await fetch(HOSTS[target.host] + target.pathname + target.search, {
    method: request.method,
    headers,
    body: chunks.length > 0 ? Buffer.concat(chunks) : undefined,
  });
  const kept = [...answer.headers].filter(([name]) => !["content-length", "content-encoding", "transfer-encoding"].includes(name));
  response.writeHead(answer.status, Object.fromEntries(kept));
  if (answer.body) for await (const chunk of answer.body) response.write(chunk);
  response.end();
});

async function main() {
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  fal.config({ proxyUrl: { url: `http://127.0.0.1:${proxy.address().port}/api/fal/proxy`, when: "always" } });

  const run = await fal.run(ENDPOINT, { input: WISH });
  seen.run = sizes(run.data);
  seen.requestId = typeof run.requestId === "string" && run.requestId.length > 0;

  const statuses = new Set();
  const subscribed = await fal.subscribe(ENDPOINT, {
    input: WISH,
    logs: true,
    pollInterval: 20,
    onQueueUpdate: (update) => statuses.add(update.status),
  });
  seen.subscribe = sizes(subscribed.data);
  seen.seed = subscribed.data.seed;
  seen.statuses = [...statuses].sort();

  const watched = await fal.subscribe(ENDPOINT, { input: WISH, mode: "streaming", logs: true });
  seen.watched = sizes(watched.data);

  const { request_id: requestId } = await fal.queue.submit(ENDPOINT, { input: WISH });
  await fal.queue.subscribeToStatus(ENDPOINT, { requestId, mode: "polling", pollInterval: 20 });
  seen.result = sizes((await fal.queue.result(ENDPOINT, { requestId })).data);

  const cancelled = await fal.queue.submit(ENDPOINT, { input: WISH });
  await fal.queue.cancel(ENDPOINT, { requestId: cancelled.request_id });
  seen.cancelled = await fal.queue.result(ENDPOINT, { requestId: cancelled.request_id }).then(
    () => null,
    (error) => (error instanceof ApiError ? error.status : String(error)),
  );

  seen.invalid = await fal.subscribe(ENDPOINT, { input: { ...WISH, guidance_scale: 21 }, pollInterval: 20 }).then(
    () => null,
    (error) => (error instanceof ValidationError ? [error.status, error.fieldErrors[0].loc, error.fieldErrors[0].type] : String(error)),
  );

  const stream = await fal.stream(ENDPOINT, { input: WISH });
  let events = 0;
  for await (const _ of stream) events += 1;
  seen.stream = [events > 1, sizes(await stream.done())];

  const uploaded = await fal.storage.upload(new Blob(["some bytes"], { type: "text/plain" }));
  seen.uploaded = await (await fetch(uploaded)).text();

  console.log(JSON.stringify(seen));
  proxy.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
