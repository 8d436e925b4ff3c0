"""The OpenAPI document against the real binary: made-up requests for every operation, good ones and bad ones."""

import httpx
import hypothesis
import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import SOAK, secret
from judge import Judge

# The WebSocket, and the routes that are not below a base, where alone the generator looks.
LEFT_OUT = {"openResponsesSocket", "retrieveOpenApi", "checkHealth", "checkReadiness"}
CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance, response_schema_conformance]
EXAMPLES = 400 if SOAK else 20
MODEL = "honshu.scripted"


@pytest.fixture
def document(judge):
    return judge.document


@pytest.fixture(scope="module")
def client(shared):
    shared.run(
        "policy", "create", "--compartment", "root", "--name", "everything", "--statement",
        "allow any-user to manage generative-ai-family in tenancy where request.principal.type = 'generativeaiapikey'")
    headers = {"authorization": f"Bearer {secret(shared.key)}"}
    with httpx.Client(base_url=shared.url + "/v1", headers=headers, timeout=60) as client:
        yield client


def test_the_document_is_one_and_the_server_gives_the_same(shared, document):
    openapi_spec_validator.validate(document)
    assert httpx.get(shared.url + "/openapi.json").status_code == 401
    headers = {"authorization": f"Bearer {secret(shared.key)}"}
    assert httpx.get(shared.url + "/openapi.json", headers=headers).json() == document


def make(client, template):
    """Path parameters that name something which is there."""
    def post(path, **more):
        answer = client.post(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    if template.startswith("/responses/{id}"):
        body = {"model": MODEL, "input": "hi", "background": template.endswith("cancel")}
        return {"id": post("/responses", json=body)["id"]}
    if template.startswith("/chat/completions/{id}"):
        asks = [{"role": "user", "content": "hi"}]
        return {"id": post("/chat/completions", json={"model": MODEL, "messages": asks, "store": True})["id"]}
    if template.startswith("/conversations/{id}"):
        made = post("/conversations", json={"items": [{"role": "user", "content": "hi"}]})
        items = client.get(f"/conversations/{made['id']}/items").json()
        return {"id": made["id"], "item": items["first_id"]}
    if template.startswith("/files/{id}"):
        return {"id": post("/files", files={"file": ("a.txt", b"a")}, data={"purpose": "user_data"})["id"]}
    return {"id": MODEL}


def test_made_up_requests_get_what_the_document_says(document, client):
    """The same requests in every run: the seed is the test itself. `HONSHU_SOAK=1` makes more of them."""
    judge = Judge(document)
    schema = schemathesis.openapi.from_dict(document)
    for operation in (found.ok() for found in schema.get_all_operations()):
        if operation.definition.raw["operationId"] in LEFT_OUT:
            continue
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            play(operation, mode, client, judge)
    good = {operation for operation, status, _ in judge.seen if status == 200}
    named = {
        method["operationId"] for path in document["paths"].values() for method in path.values()
        if isinstance(method, dict) and "operationId" in method
    }
    assert good == named - LEFT_OUT, "every operation was done at least once"
    assert any(media == "text/event-stream" for _, _, media in judge.seen)


def play(operation, mode, client, judge):
    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate])
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), known=st.sampled_from([True, True, True, False]))
    def one(case, known):
        if known:
            point_at_what_is_there(case, client)
        answer = case.call(base_url=str(client.base_url), headers=dict(client.headers))
        is_stream = "event-stream" in answer.headers.get("content-type", [""])[0]
        # The generator does not know what a stream of events holds; the judge does.
        checks = CHECKS[:3] if is_stream else CHECKS
        case.validate_response(answer, checks=checks)
        headers = {name: values[0] for name, values in answer.headers.items()}
        path = httpx.URL(answer.request.url).path
        judge.answer(operation.method, path, answer.status_code, headers, answer.content)

    one()


def point_at_what_is_there(case, client):
    """What is made up names nothing, and then nothing behind the first look-up would be tried."""
    if case.path_parameters:
        there = make(client, case.operation.path)
        case.path_parameters.update({name: there[name] for name in case.path_parameters})
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL
    for name in ("previous_response_id", "conversation", "prompt", "tool_choice", "function_call"):
        case.body.pop(name, None)
    # Most made-up lists of items refer to others.
    is_response = "responses" in case.operation.path
    if is_response and (len(case.body) % 2 or "input" not in case.body):
        case.body["input"] = "hi"
    if case.operation.path in ("/responses", "/chat/completions", "/completions", "/messages"):
        case.body["stream"] = len(case.body) % 3 == 0
    # What the old Completions have beside one text reaches upstreams only.
    if case.operation.path == "/completions" and len(case.body) % 2:
        case.body["prompt"] = "hi"
        for name in ("echo", "best_of", "suffix"):
            case.body.pop(name, None)
