"""langchain-aimlapi, unchanged, in the table of clients."""

from langchain_aimlapi import AimlapiImageModel
from table import GATEWAY, KEY, PROMPT, run

model = AimlapiImageModel(model="flux/dev", base_url=f"{GATEWAY}/v1", api_key=KEY)
run(
    {
        "size": lambda: {"image": model.generate_images(PROMPT, size="1536x1024", response_format="b64_json")[0]},
        "error": lambda: {"image": model.invoke(PROMPT, size="1000x1000")},
    }
)
