"""fal's own Python client, unchanged, in the table of clients.

FAL_RUN_HOST, FAL_QUEUE_RUN_HOST, FAL_KEY and SSL_CERT_FILE say where the gateway is.
"""

import base64

import fal_client
from table import PROMPT, picture, run


def ask(endpoint, **wanted):
    result = fal_client.subscribe(endpoint, arguments={"prompt": PROMPT, **wanted})
    return {"image": result["images"][0]["url"]}


def stream():
    wanted = {"prompt": PROMPT, "image_size": {"width": 512, "height": 768}}
    events = list(fal_client.stream("fal-ai/flux/dev", arguments=wanted))
    return {"events": len(events), "image": events[-1]["images"][0]["url"]}


data_uri = "data:image/png;base64," + base64.b64encode(picture().read()).decode()
run(
    {
        "size": lambda: ask("fal-ai/flux/dev", image_size={"width": 1536, "height": 1024}),
        "ratio": lambda: ask("fal-ai/nano-banana", aspect_ratio="9:16"),
        "edit": lambda: ask("fal-ai/flux-2/edit", image_urls=[data_uri], image_size={"width": 512, "height": 768}),
        "stream": stream,
        "error": lambda: ask("fal-ai/flux/dev", image_size={"width": 1000, "height": 1000}),
    }
)
