"""A generation in the background by plain HTTP: asked for once whatever happens, watched, fetched."""

import os
import time
import uuid

import requests

url = os.environ.get("IMAGEGATE_URL", "http://127.0.0.1:8080")
session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['IMAGEGATE_KEY']}"


def read(answer):
    if not answer.ok:
        raise SystemExit(answer.json()["error"]["message"])
    return answer.json()


# Sent again with the same key, it is still one image and one charge.
key = str(uuid.uuid4())
wish = {"model": "hidream-i1-full", "prompt": "A fox in the snow", "background": True}
for _ in range(2):
    generation = read(session.post(f"{url}/v1/images/generations", json=wish, headers={"Idempotency-Key": key}))

while generation["state"] in ("queued", "running"):
    before = generation.get("queue_position")
    lines = [line["message"] for line in generation.get("logs", [])]
    print(generation["state"], f"with {before} before it" if before is not None else "", *lines[-1:])
    time.sleep(0.3)
    generation = read(session.get(f"{url}/v1/images/generations/{generation['id']}"))

if generation["state"] != "succeeded":
    raise SystemExit(generation["error"]["message"])
with open("fox.jpg", "wb") as file:
    file.write(requests.get(generation["images"][0]["url"]).content)
print(f"fox.jpg cost {generation['price_usd']} USD")
