"""What the clients in the table have in common. GATEWAY and KEY say where and who, PICTURE is a PNG file."""

import json
import os

GATEWAY, KEY = os.environ["GATEWAY"], os.environ["KEY"]
PROMPT = "a red fox"


def picture():
    return open(os.environ["PICTURE"], "rb")


def image(answer):
    """What an application finds in an answer of OpenAI's form: the image itself, else its address."""
    return {"image": answer.data[0].b64_json or answer.data[0].url}


def run(cases):
    """Runs the cases in their order and prints one line of JSON: what each gave, or its error."""
    seen = {}
    for name, call in cases.items():
        try:
            seen[name] = call()
        except Exception as error:
            seen[name] = {"error": [type(error).__name__, getattr(error, "status_code", None), str(error)]}
    print(json.dumps(seen))


def openai_cases(client, flux="flux/dev", editor="blackforestlabs/flux-2-edit"):
    """The cases of OpenAI's SDK for Python, of any version."""

    def generate(**wanted):
        return image(client.images.generate(model=flux, prompt=PROMPT, **wanted))

    def stream():
        wanted = {"model": flux, "prompt": PROMPT, "size": "512x768", "stream": True, "partial_images": 1}
        events = list(client.images.generate(**wanted))
        last = [event for event in events if event.type == "image_generation.completed"][-1]
        return {"events": len(events), "image": last.b64_json}

    return {
        "size": lambda: generate(size="1536x1024"),
        "ratio": lambda: generate(extra_body={"aspect_ratio": "9:16"}),
        "edit": lambda: image(client.images.edit(model=editor, prompt=PROMPT, image=picture(), size="512x768")),
        "stream": stream,
        "error": lambda: generate(size="1000x1000"),
    }
