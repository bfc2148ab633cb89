// Uses the types that openapi-typescript generates from the document, with openapi-fetch.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { env: Record<string, string | undefined> };

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}
function check(condition: unknown, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}
const client = (key: string) =>
  createClient<paths>({ baseUrl: setting("IMAGEGATE_URL"), headers: { authorization: `Bearer ${key}` } });
const project = client(setting("IMAGEGATE_KEY"));
const admin = client(setting("IMAGEGATE_ADMIN"));

// Each model has a type of its own, chosen by `model`.
const body: components["schemas"]["ImageGenerationRequest"] = {
  model: "flux/dev",
  prompt: "a cat",
  image_size: { width: 512, height: 768 },
  num_images: 2,
  user: "ada",
};
// @ts-expect-error: this model has no `rendering_speed`.
const foreign: components["schemas"]["FluxDevRequest"] = { model: "flux/dev", prompt: "a cat", rendering_speed: "TURBO" };
// @ts-expect-error: there is no such model.
const unknown: components["schemas"]["FluxDevRequest"] = { model: "flux/nothing", prompt: "a cat" };
void [foreign, unknown];

const quoted = await project.POST("/v1/images/generations/quote", { body });
check(quoted.data?.price_usd === "0.050000000", quoted);

const made = await project.POST("/v1/images/generations", { body, headers: { "Idempotency-Key": "ts-1" } });
check(made.response.status === 201, made);
const answer = made.data as components["schemas"]["ImageAnswer"];
check(answer.images.length === 2 && answer.images[0]?.width === 512 && answer.images[0]?.height === 768, answer);

const found = await project.GET("/v1/images/generations/{id}", { params: { path: { id: answer.id } } });
check(found.data?.state === "succeeded" && found.data.price_usd === "0.050000000", found);

// Errors are typed.
const wrong = await project.POST("/v1/images/generations", {
  body: { model: "flux/dev", prompt: "", num_images: 99 },
});
check(wrong.error !== undefined && wrong.error.error.code === "invalid_parameters", wrong);
check(Array.isArray(wrong.error.error.data) && wrong.error.error.data.length === 2, wrong.error);

const models = await project.GET("/v1/models", { params: { query: { q: "flux" } } });
check(models.data?.data.some((model) => model.id === "flux/dev"), models);

const now = Math.floor(Date.now() / 1000);
const usage = await admin.GET("/v1/organization/usage/images", { params: { query: { start_time: now - (now % 86400) } } });
const images = usage.data?.data.flatMap((bucket) => bucket.results).reduce((sum, result) => sum + result.images, 0);
check(images === 2, usage);
console.log("all as typed");
