"""Uses the client that openapi-generator's `python` generates from the document (argv[1]: the folder it is in)."""

import base64
import os
import sys
import time

sys.path.insert(0, sys.argv[1])

import openapi_client
import pydantic
from openapi_client.models import (
    FluxDevImageSize,
    FluxDevRequest,
    ImageEditRequest,
    ImageGenerationRequest,
    ImageReference,
)

# The smallest PNG that there is.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

configuration = openapi_client.Configuration(
    host=os.environ["IMAGEGATE_URL"], access_token=os.environ["IMAGEGATE_KEY"]
)
with openapi_client.ApiClient(configuration) as client:
    images = openapi_client.ImagesApi(client)
    request = FluxDevRequest(model="flux/dev", prompt="a cat", image_size=FluxDevImageSize("square"), num_images=2)
    made = images.create_image_generation(ImageGenerationRequest(request))
    assert len(made.images) == 2 and made.images[0].width == 512, made
    found = images.retrieve_image_generation(made.id)
    assert found.state == "succeeded" and found.price_usd == "0.050000000", found
    # Several files in a form.
    edited = images.create_image_edit(
        model="blackforestlabs/flux-2-edit", prompt="make it night", image=[("a.png", PICTURE), ("b.png", PICTURE)]
    )
    assert len(edited.images) == 1, edited
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    edited = images.create_image_edit_from_json(
        ImageEditRequest(
            model="blackforestlabs/flux-2-edit", prompt="make it night", images=[ImageReference(image_url=url)]
        )
    )
    assert len(edited.images) == 1, edited
    try:  # The document's limits are in the client.
        FluxDevRequest(model="flux/dev", prompt="")
        raise AssertionError("an empty prompt was taken")
    except pydantic.ValidationError:
        pass
    try:
        images.retrieve_image_generation("01900000-0000-7000-8000-000000000000")
        raise AssertionError("an unknown id was found")
    except openapi_client.exceptions.NotFoundException as refusal:
        assert refusal.data.error.code == "not_found", refusal
configuration.access_token = os.environ["IMAGEGATE_ADMIN"]
with openapi_client.ApiClient(configuration) as client:
    day = int(time.time()) // 86400 * 86400
    usage = openapi_client.OrganizationApi(client).list_image_usage(start_time=day)
    assert sum(result.images for bucket in usage.data for result in bucket.results) == 4, usage
print("all as typed")
