"""fal's own Python client, unchanged, against the stand-in over TLS.

FAL_RUN_HOST, FAL_QUEUE_RUN_HOST, FAL_KEY and SSL_CERT_FILE say where it is; prints one line of JSON with what was seen.
"""

import asyncio
import json

import fal_client

ENDPOINT = "fal-ai/flux/dev"
WISH = {"prompt": "a red fox", "image_size": "square", "seed": 7}
seen = {}


def sizes(result):
    return [[image["width"], image["height"]] for image in result["images"]]


seen["run"] = sizes(fal_client.run(ENDPOINT, arguments=WISH))

handle = fal_client.submit(ENDPOINT, arguments=WISH)
seen["events"] = sorted({type(event).__name__ for event in handle.iter_events(with_logs=True, interval=0.02)})
result = handle.get()
seen["queue"] = sizes(result)
seen["seed"] = result["seed"]
seen["status"] = type(handle.status(with_logs=True)).__name__
seen["again"] = sizes(fal_client.result(ENDPOINT, handle.request_id))

enqueued = []
subscribed = fal_client.subscribe(ENDPOINT, arguments=WISH, with_logs=True, on_enqueue=enqueued.append)
seen["subscribe"] = sizes(subscribed)
seen["enqueued"] = len(enqueued)

handle = fal_client.submit(ENDPOINT, arguments=WISH)
handle.cancel()
try:
    handle.get()
    seen["cancelled"] = None
except fal_client.FalClientHTTPError as error:
    seen["cancelled"] = error.status_code

try:
    fal_client.subscribe(ENDPOINT, arguments={**WISH, "guidance_scale": 21})
    seen["invalid"] = None
except fal_client.FalClientHTTPError as error:
    detail = error.response.json()["detail"][0]
    seen["invalid"] = [error.status_code, detail["loc"], detail["type"]]

try:
    fal_client.run("fal-ai/no-such-app", arguments=WISH)
    seen["unknown"] = None
except fal_client.FalClientHTTPError as error:
    seen["unknown"] = error.status_code

streamed = list(fal_client.stream(ENDPOINT, arguments=WISH))
seen["stream"] = [len(streamed) > 1, sizes(streamed[-1])]


async def asynchronously():
    client = fal_client.AsyncClient()
    handle = await client.submit(ENDPOINT, arguments=WISH)
    return sizes(await handle.get())


seen["async"] = asyncio.run(asynchronously())
print(json.dumps(seen))
