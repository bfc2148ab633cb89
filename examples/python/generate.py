"""Two images with OpenAI's SDK, and what a wrong request is told."""

import base64
import os

import openai

url = os.environ.get("IMAGEGATE_URL", "http://127.0.0.1:8080")
client = openai.OpenAI(base_url=f"{url}/v1", api_key=os.environ["IMAGEGATE_KEY"])

answer = client.images.generate(
    model="flux/dev",
    prompt="A lighthouse at dusk",
    size="1024x768",
    n=2,
    response_format="b64_json",
    # What OpenAI has no word for goes into `extra_body`.
    extra_body={"seed": 7, "num_inference_steps": 20},
)
for number, image in enumerate(answer.data, 1):
    with open(f"lighthouse-{number}.jpg", "wb") as file:
        file.write(base64.b64decode(image.b64_json))
print(f"two images cost {answer.meta['usage']['price_usd']} USD")

try:
    client.images.generate(model="flux/dev", prompt="A lighthouse at dusk", size="1000x1000")
except openai.BadRequestError as error:
    for problem in error.body["data"]:
        print(error.code, ".".join(map(str, problem["path"])), problem["message"])
