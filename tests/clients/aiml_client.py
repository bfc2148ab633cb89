"""LiteLLM with its providers aiml and openai, and langchain-aimlapi, unchanged.

GATEWAY and KEY say where and who; prints one line of JSON with what was seen.
"""

import asyncio
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from langchain_aimlapi import AimlapiImageModel

GATEWAY, KEY = os.environ["GATEWAY"], os.environ["KEY"]
PROMPT = "a red fox"
seen = {}


def told(answer):
    """How many images, and how each of them came."""
    return [("base64" if image.b64_json else "url") for image in answer.data]


def refused(call, **wish):
    try:
        call(**wish)
        return None
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None)]


for base in [GATEWAY, f"{GATEWAY}/v1"]:
    aiml = {"model": "aiml/flux-pro/v1.1", "prompt": PROMPT, "api_base": base, "api_key": KEY}
    seen.setdefault("aiml", []).append(told(litellm.image_generation(**aiml)))
aiml["api_base"] = GATEWAY
seen["aiml_parameters"] = told(litellm.image_generation(**aiml, n=2, size="1024x768", response_format="b64_json"))
extra = litellm.image_generation(**aiml, image_size={"width": 512, "height": 512}, seed=1)
seen["aiml_extra"] = told(extra)
seen["aiml_async"] = told(asyncio.run(litellm.aimage_generation(**aiml)))
seen["aiml_unknown"] = refused(litellm.image_generation, **{**aiml, "model": "aiml/flux/none"})
seen["aiml_stranger"] = refused(litellm.image_generation, **{**aiml, "api_key": "nobody's"})
seen["aiml_invalid"] = refused(litellm.image_generation, **aiml, size="1000x1000")

openai = {"model": "openai/flux/dev", "prompt": PROMPT, "api_base": f"{GATEWAY}/v1", "api_key": KEY}
seen["openai"] = told(litellm.image_generation(**openai, n=2, size="1024x1024"))
seen["openai_async"] = told(asyncio.run(litellm.aimage_generation(**openai)))
seen["openai_unknown"] = refused(litellm.image_generation, **{**openai, "model": "openai/flux/none"})
seen["openai_stranger"] = refused(litellm.image_generation, **{**openai, "api_key": "nobody's"})
seen["openai_invalid"] = refused(litellm.image_generation, **openai, size="1000x1000")

model = AimlapiImageModel(model="flux/dev", base_url=f"{GATEWAY}/v1", api_key=KEY)
seen["langchain"] = model.invoke(PROMPT).startswith("http")

print(json.dumps(seen))
