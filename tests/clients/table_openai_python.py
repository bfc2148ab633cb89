"""OpenAI's SDK for Python, unchanged, in the table of clients."""

import openai
from table import GATEWAY, KEY, openai_cases, run

run(openai_cases(openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key=KEY)))
