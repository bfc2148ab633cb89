"""LiteLLM as a client, with the provider that PROVIDER names, unchanged, in the table of clients."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from table import GATEWAY, KEY, PROMPT, image, picture, run

PROVIDER = os.environ["PROVIDER"]
BASE = {"openai": f"{GATEWAY}/v1", "aiml": f"{GATEWAY}/v1", "fal_ai": f"{GATEWAY}/fal/run"}[PROVIDER]
FLUX = {"openai": "flux/dev", "aiml": "flux/dev", "fal_ai": "fal-ai/flux/dev"}[PROVIDER]


def generate(model=FLUX, **wanted):
    account = {"api_base": BASE, "api_key": KEY}
    return image(litellm.image_generation(model=f"{PROVIDER}/{model}", prompt=PROMPT, **account, **wanted))


def edit(model):
    account = {"api_base": BASE, "api_key": KEY}
    wanted = {"model": f"{PROVIDER}/{model}", "prompt": PROMPT, "image": picture(), "size": "512x768"}
    return image(litellm.image_edit(**wanted, **account))


cases = {"size": lambda: generate(size="1536x1024")}
if PROVIDER == "fal_ai":
    # LiteLLM itself makes this size a ratio for this model.
    cases["ratio"] = lambda: generate("fal-ai/flux-pro/v1.1-ultra", size="1024x1792")
    cases["edit"] = lambda: edit("fal-ai/flux-2/edit")
else:
    cases["ratio"] = lambda: generate(extra_body={"aspect_ratio": "9:16"})
if PROVIDER == "openai":
    cases["edit"] = lambda: edit("blackforestlabs/flux-2-edit")
cases["error"] = lambda: generate(size="1000x1000")
run(cases)
