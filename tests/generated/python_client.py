"""Uses the client that openapi-python-client generates from the document (argv[1]: the folder it is in)."""

import os
import sys
import time

sys.path.insert(0, sys.argv[1])

from imagegate_client import AuthenticatedClient
from imagegate_client.api.images import create_image_generation, quote_image_generation, retrieve_image_generation
from imagegate_client.api.models import list_models
from imagegate_client.api.organization import list_costs, list_image_usage
from imagegate_client.models import (
    FluxDevImageSizePixels,
    FluxDevModel,
    FluxDevRequest,
    Generation,
    GenerationState,
    IdeogramV2Model,
    IdeogramV2Request,
    ImageAnswer,
    ListImageUsageBucketWidth,
    NamedSize,
    Problem,
)

base = os.environ["IMAGEGATE_URL"]
project = AuthenticatedClient(base_url=base, token=os.environ["IMAGEGATE_KEY"])
admin = AuthenticatedClient(base_url=base, token=os.environ["IMAGEGATE_ADMIN"])
started = int(time.time())

# Each model has a type of its own.
body = FluxDevRequest(
    model=FluxDevModel.FLUXDEV, prompt="a cat", image_size=NamedSize.SQUARE, num_images=2, seed=7, user="ada"
)
quoted = quote_image_generation.sync(client=project, body=body)
assert quoted.price_usd == "0.050000000", quoted
made = create_image_generation.sync(client=project, body=body)
assert isinstance(made, ImageAnswer), made
assert len(made.images) == 2 and (made.images[0].width, made.images[0].height) == (512, 512), made
assert made.seed == 7

found = retrieve_image_generation.sync(made.id, client=project)
assert isinstance(found, Generation) and found.state == GenerationState.SUCCEEDED, found
assert (found.num_images, found.price_usd, found.user) == (2, "0.050000000", "ada"), found

other = IdeogramV2Request(model=IdeogramV2Model.FAL_AIIDEOGRAMV2, prompt="a dog")
assert isinstance(create_image_generation.sync(client=project, body=other), ImageAnswer)

# Errors are typed, with every problem.
wrong = FluxDevRequest(
    model=FluxDevModel.FLUXDEV, prompt="", image_size=FluxDevImageSizePixels(width=0, height=512), num_images=99
)
answer = create_image_generation.sync_detailed(client=project, body=wrong)
assert answer.status_code == 400 and isinstance(answer.parsed, Problem), answer
assert answer.parsed.error.code == "invalid_parameters" and len(answer.parsed.error.data) == 3, answer.parsed
stranger = AuthenticatedClient(base_url=base, token="not-a-key-at-all")
refused = create_image_generation.sync_detailed(client=stranger, body=body)
assert refused.status_code == 401 and refused.parsed.error.code == "invalid_api_key", refused

assert any(model.id == "flux/dev" for model in list_models.sync(client=project).data)

# Usage and costs, to the nano-dollar.
day = started - started % 86400
usage = list_image_usage.sync(client=admin, start_time=day, bucket_width=ListImageUsageBucketWidth("1d"))
assert sum(result.images for bucket in usage.data for result in bucket.results) == 3, usage
costs = list_costs.sync(client=admin, start_time=day)
assert any(bucket.results for bucket in costs.data), costs
print("all as typed")
