"""LiteLLM in front: its proxy, unchanged, sends to the gateway what OpenAI's SDK asks it for, in the table of clients.

The proxy cannot pass a stream of images on: it fails when it has one, and its router asks again.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai
from table import GATEWAY, KEY, openai_cases, run

MASTER_KEY = "sk-master-key-of-the-proxy"
MODELS = {"fox": "openai/flux/dev", "fox-editor": "openai/blackforestlabs/flux-2-edit"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def settings():
    """What an operator writes for the proxy; JSON is YAML as well."""
    account = {"api_base": f"{GATEWAY}/v1", "api_key": KEY}
    models = [{"model_name": name, "litellm_params": {"model": model, **account}} for name, model in MODELS.items()]
    return {"model_list": models, "general_settings": {"master_key": MASTER_KEY}}


def wait_for(base, proxy):
    for _ in range(1200):
        try:
            return urllib.request.urlopen(f"{base}/health/liveliness", timeout=5)
        except OSError:
            if proxy.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the proxy does not start")


with tempfile.TemporaryDirectory() as folder:
    config = pathlib.Path(folder, "config.yaml")
    config.write_text(json.dumps(settings()))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    program = pathlib.Path(sys.executable).with_name("litellm")
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": folder}
    with open(pathlib.Path(folder, "log"), "w+") as log:
        proxy = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(base, proxy)
            client = openai.OpenAI(base_url=base, api_key=MASTER_KEY, max_retries=0)
            cases = openai_cases(client, "fox", "fox-editor")
            del cases["stream"]
            run(cases)
        finally:
            proxy.terminate()
            proxy.wait(30)
            log.seek(0)
            print(log.read(), file=sys.stderr)
