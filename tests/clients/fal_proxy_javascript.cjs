// fal's own JavaScript client, unchanged, against imagegate: `proxyUrl` leads to it, the credentials are a key of it.
// GATEWAY, KEY and WEBHOOK say where and who; prints one line of JSON with what was seen.
const { fal, createFalClient, ValidationError, ApiError } = require("@fal-ai/client");

const { GATEWAY, KEY, WEBHOOK } = process.env;
const ENDPOINT = "fal-ai/flux/dev";
const WISH = { prompt: "a red fox", image_size: "square", seed: 7 };
const seen = {};
const sizes = (data) => data.images.map((image) => [image.width, image.height]);
const told = (error) => (error instanceof ApiError ? [error.status, error.body?.detail ?? error.body] : String(error));
const proxy = (path) => ({ url: `${GATEWAY}${path}`, when: "always" });

async function main() {
  fal.config({ proxyUrl: proxy("/fal/proxy"), credentials: KEY });

  const run = await fal.run(ENDPOINT, { input: WISH });
  seen.run = sizes(run.data);
  seen.output = Object.keys(run.data).sort();
  seen.runId = run.requestId;

  const statuses = new Set();
  const logs = new Set();
  const enqueued = [];
  const subscribed = await fal.subscribe(ENDPOINT, {
    input: WISH,
    logs: true,
    pollInterval: 20,
    onEnqueue: (id) => enqueued.push(id),
    onQueueUpdate: (update) => {
      statuses.add(update.status);
      for (const line of update.logs ?? []) logs.add(line.message);
    },
  });
  seen.subscribe = sizes(subscribed.data);
  seen.seed = subscribed.data.seed;
  seen.statuses = [...statuses].sort();
  seen.logs = logs.has(" 25%");
  seen.enqueued = enqueued.length === 1 && enqueued[0] === subscribed.requestId;

  const lines = [];
  const watched = await fal.subscribe(ENDPOINT, {
    input: WISH,
    mode: "streaming",
    logs: true,
    onQueueUpdate: (update) => lines.push(...(update.logs ?? []).map((line) => line.message)),
  });
  seen.watched = sizes(watched.data);
  seen.watchedLogs = lines.includes(" 25%");

  const submitted = await fal.queue.submit(ENDPOINT, { input: WISH, webhookUrl: WEBHOOK });
  seen.submitted = [submitted.status, submitted.status_url];
  const requestId = submitted.request_id;
  seen.webhookId = requestId;
  const early = await fal.queue.result(ENDPOINT, { requestId }).then(() => null, told);
  seen.early = early;
  await fal.queue.subscribeToStatus(ENDPOINT, { requestId, mode: "polling", pollInterval: 20 });
  const status = await fal.queue.status(ENDPOINT, { requestId, logs: true });
  seen.status = [status.status, status.logs.length > 0, typeof status.metrics.inference_time];
  seen.result = sizes((await fal.queue.result(ENDPOINT, { requestId })).data);

  const cancelled = await fal.queue.submit(ENDPOINT, { input: WISH });
  await fal.queue.cancel(ENDPOINT, { requestId: cancelled.request_id });
  seen.cancelled = await fal.queue.result(ENDPOINT, { requestId: cancelled.request_id }).then(() => null, told);

  const wrong = { ...WISH, guidance_scale: 21 };
  seen.invalid = await fal.subscribe(ENDPOINT, { input: wrong }).then(
    () => null,
    (error) => (error instanceof ValidationError ? [error.status, error.fieldErrors[0].loc, error.fieldErrors[0].type] : String(error)),
  );
  seen.unknown = await fal.run("fal-ai/no-such-app", { input: WISH }).then(() => null, told);

  const stream = await fal.stream(ENDPOINT, { input: WISH });
  let events = 0;
  for await (const _ of stream) events += 1;
  seen.stream = [events > 1, sizes(await stream.done())];

  const embedded = await fal.run(ENDPOINT, { input: { ...WISH, sync_mode: true } });
  seen.embedded = embedded.data.images[0].url.slice(0, 23);

  const uploaded = await fal.storage.upload(new Blob(["some bytes"], { type: "text/plain" }));
  seen.uploaded = await (await fetch(uploaded)).text();

  const stranger = createFalClient({ proxyUrl: proxy("/fal/proxy"), credentials: "id:secret" });
  seen.stranger = (await stranger.run(ENDPOINT, { input: WISH }).then(() => null, told))[0];
  const nobody = createFalClient({ proxyUrl: proxy("/fal/proxy"), credentials: undefined });
  seen.nobody = (await nobody.run(ENDPOINT, { input: WISH }).then(() => null, told))[0];

  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
