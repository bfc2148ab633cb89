"""What Schemathesis is told beside the document: rules that a schema of OpenAPI cannot state.

Every check is on. A request that keeps to all schemas and is refused is a finding, as is one that breaks one and is
taken. Only what is listed here is not, each by its own sentence.
"""

import json
import re

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.file_samples import MEDIA_TYPE_FILE_SAMPLES

# Uploads are images: what is not one is refused whatever it is called.
for media_type, sample in MEDIA_TYPE_FILE_SAMPLES.items():
    schemathesis.openapi.media_type(media_type, st.just(sample))

# Refusals of requests that keep to the schemas: (operations, status, message), the last and the first as regular expressions.
EVERY = ".*"
REFUSALS = [
    # One field decides what another may be.
    (EVERY, 400, r"`end_time`: must be later than `start_time`"),
    (EVERY, 400, r"`before`: cannot be given together with `after`"),
    ("listImageUsage", 400, r"`limit`: must be from 1 to (31|168)$"),
    ("retrieveKeyUsage(Detail)?|listKeyLogs", 400, r"`period`: must not stand beside `start` and `end`"),
    ("retrieveKeyUsage(Detail)?|listKeyLogs", 400, r"`(start|end)`: is required beside `(start|end)`"),
    ("retrieveKeyUsage(Detail)?|listKeyLogs", 400, r"`end`: must not (be earlier than `start`|make a window)"),
    ("listBillingTransactions", 400, r"`end`: must be later than the start"),
    ("(create|quote)ImageGeneration", 400, r"cannot be .* together with "),
    # A cursor is what a page before has given.
    ("listBillingTransactions", 400, r"`cursor`: must be `next_cursor` of the page before"),
    ("createProjectCredit", 400, r"`amount_usd`: must be above zero for"),
    ("createServiceAccount", 400, r"cannot be given with `create_service_account_only`"),
    ("(create|quote)ImageGeneration", 400, r"it does not fit the fallback"),
    # Classes of characters that an expression of a schema cannot name.
    (EVERY, 400, r"a name has 1 to [0-9]+ characters, none of them invisible"),
    (EVERY, 400, r"`reason`: is not blank"),
    (EVERY, 400, r"`prompt` must not be blank"),
    # Operators name models of the catalogue, which their own files may add to.
    (EVERY, 400, r"there is no model `"),
    ("setModelAlias", 400, r"`target`: |the values do not fit the model|`(name|description)`:? is not blank"),
    # A seed has 64 bits; the document names no limit that most languages cannot hold.
    ("(create|quote)ImageGeneration", 400, r"must be at most 18446744073709551615"),
    # What the books say decides.
    ("createProjectCredit", 400, r"a project's balance stays within a billion US dollars"),
    ("createGenerationRefund", 400, r"cannot be given back of the"),
    # The key was used before, for another request.
    (EVERY, 422, r"this `Idempotency-Key` was used with another"),
    # The form is the same for all models; what one of them takes is told by `GET /v1/models/{id}`.
    ("createImageEdit(FromJson)?", 400, r"^Invalid payload provided: "),
    # Further fields of the form have names that the header of a part can carry.
    ("createImageEdit(FromJson)?", 400, r"^(a part of the form has no name|the form cannot be read)"),
    # fal's clients send what fal's document of the endpoint says, which is not this document.
    ("(run|submit)AsFal|sendThroughFalProxy", 422, EVERY),
]
GENERATION = "(create|quote)ImageGeneration"


def read(response):
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}


def is_only_about_further_fields(case, body):
    """Whether what is wrong is in fields that the model's schema does not have: `x-imagegate-strict: true` refuses them, and
    other names of a parameter, which its description tells, are checked as it is."""
    schemas = case.operation.schema.raw_schema["components"]["schemas"]
    mapping = schemas["ImageGenerationRequest"]["discriminator"]["mapping"]
    chosen = mapping.get(case.body.get("model"), "").rsplit("/", 1)[-1]
    fields = schemas.get(chosen, {}).get("properties", {})
    problems = body.get("error", {}).get("data") or []

    def is_about_one(problem):
        unknown = re.search("is not a field of this model|does not take", problem["message"])
        return unknown or problem["path"] and problem["path"][0] not in fields

    return bool(fields and problems) and all(map(is_about_one, problems))


def says_nothing(value):
    """Whether a value, or one within it, means that a parameter is not given."""
    if isinstance(value, dict):
        return any(map(says_nothing, value.values()))
    if isinstance(value, list):
        return not value or any(map(says_nothing, value))
    return value in (None, "", "auto")


@schemathesis.hook
def filter_failure(context, failure, case, response):
    kind = type(failure).__name__
    operation = case.operation.definition.raw["operationId"]
    is_generation = re.fullmatch(GENERATION, operation) and isinstance(case.body, dict)
    if kind == "RejectedPositiveData":
        body = read(response)
        message = body.get("message") or json.dumps(body.get("detail"), ensure_ascii=False)
        if is_generation and response.status_code == 400 and is_only_about_further_fields(case, body):
            return False
        return not any(
            response.status_code == status and re.fullmatch(operations, operation) and re.search(refusal, message)
            for operations, status, refusal in REFUSALS
        )
    is_edit = operation == "createImageEditFromJson" and isinstance(case.body, dict)
    if kind == "AcceptedNegativeData" and (is_generation or is_edit):
        # The request asked for what does not fit to be changed, and the answer names what was.
        if case.headers.get("x-imagegate-adapt", "none") != "none" and "x-imagegate-adapted" in response.headers:
            return False
        # `null`, an empty text or list, and `auto` mean that a parameter is not given; the document has what says something.
        return not says_nothing(case.body)
    # Before OpenAPI 3.2 the schema of an event stream describes its whole text; Schemathesis takes it for one event's.
    return not (kind == "JsonSchemaError" and "text/event-stream" in response.headers.get("content-type", [""])[0])
