from __future__ import annotations

import json
import re

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

PATHS_WITHOUT_DOCUMENT = {"/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js", "/topics/{}/methods"}


@pytest.fixture
def document(api):
    reply = api.get("/openapi.json")
    assert reply.status == 200, reply.body
    return reply.json()


def test_the_document_is_valid(document):
    validate(document, cls=OpenAPIV31SpecValidator)


def test_operation_ids_are_unique_and_names_in_every_language(document):
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z]\w*", each) for each in ids)


def test_every_method_has_its_path_and_reading_ones_a_get(api, document):
    for topic in ("lamp", "ostler"):
        for method in api.get(f"/topics/{topic}").json():
            path = document["paths"][f"/topics/{topic}/methods/{method['method']}"]
            assert "post" in path
            takes_host = any(each["name"] == "host" for each in method["arguments"])
            assert ("get" in path) is (not method["changes"] and not takes_host)


def test_results_are_as_the_document_says(api, document):
    schema = document["paths"]["/topics/lamp/methods/switch"]["post"]["responses"]["200"]["content"]["application/json"]
    result = api.post("/topics/lamp/methods/switch", {"name": "a"}).json()
    jsonschema.validate(result, {**schema["schema"], "components": document["components"]})
    rows = document["paths"]["/services"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(api.get("/services").json(), {**rows, "components": document["components"]})


def content(document, path, verb, status, kind="application/json"):
    """Return the schema of a response, with what it refers to."""
    schema = document["paths"][path][verb]["responses"][status]["content"][kind]["schema"]
    return {**schema, "components": document["components"]}


def test_what_is_the_same_on_every_host_is_as_the_document_says(api, document):
    for path, given in (("/", "/"), ("/topics", "/topics"), ("/topics/{topic}", "/topics/lamp")):
        schema = content(document, path, "get", "200")
        assert schema.get("type") or schema.get("$ref")
        jsonschema.validate(api.get(given).json(), schema)
    path = "/topics/lamp/methods/build"
    for headers in ({}, {"prefer": "wait=10"}):
        reply = api.post(f"{path}/submit", {"name": "a"}, headers=headers)
        schema = content(document, f"{path}/submit", "post", str(reply.status))
        assert schema["$ref"] == "#/components/schemas/OperationStatus"
        jsonschema.validate(reply.json(), schema)


def test_a_call_has_one_kind_of_result_for_generated_clients(document):
    for path, verbs in document["paths"].items():
        if path.startswith("/topics/lamp/methods/") and not path.endswith("/submit"):
            assert all(
                [status for status in each["responses"] if status[0] == "2"] == ["200"] for each in verbs.values()
            )


def test_lines_of_streams_are_as_the_document_says(api, document):
    operation = api.post("/topics/lamp/methods/build/submit", {"name": "a"}).json()["id"]
    for path, given in (
        ("/operations/{id}/watch", f"/operations/{operation}/watch"),
        ("/topics/lamp/methods/count", "/topics/lamp/methods/count?to=2&fail=true"),
        ("/events", "/events?since=lamp:99"),
    ):
        schema = content(document, path, "get", "200", "application/x-ndjson")
        reply = api.get(given, headers={"accept": "application/x-ndjson", "request-timeout": "1"})
        lines = [json.loads(line) for line in reply.body.splitlines() if line]
        assert lines
        for line in lines:
            assert set(line) <= set(schema["properties"])
            jsonschema.validate(line, schema)


def test_every_error_response_is_described_with_its_headers(document):
    shared = document["components"]["responses"]
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            found = operation["responses"]
            errors = {status for status in found if status[0] in "45"}
            needed = {"400", "401", "403", "404", "422", "429", "503", "504"}
            needed |= {"409", "413", "415"} if verb == "post" else set()
            assert errors >= needed, path
            assert "default" in found
            names = [each["$ref"].rpartition("/")[2] for each in found.values() if "$ref" in each]
            assert all("Problem" in str(shared[name]["content"]) for name in names)
    assert "Retry-After" in shared["Unavailable"]["headers"]
    assert "Retry-After" in shared["TooManyRequests"]["headers"]
    assert "WWW-Authenticate" in shared["Unauthorized"]["headers"]


def test_problems_are_as_the_document_says(api, document):
    problem = api.post("/topics/lamp/methods/fail", {"kind": "missing"}).json()
    jsonschema.validate(problem, document["components"]["schemas"]["Problem"])


def test_what_docstrings_say_is_beside_the_properties(document):
    show = document["paths"]["/topics/lamp/methods/show"]["post"]["requestBody"]["content"]["application/json"]
    assert show["schema"]["properties"]["level"]["description"] == "How bright."
    lamp = document["components"]["schemas"]["lamp.Lamp"]
    assert lamp["description"] == "A lamp."
    assert lamp["properties"]["image"]["description"] == "How it looks."
    assert lamp["properties"]["inner"]["items"] == {"$ref": "#/components/schemas/lamp.Lamp"}
    assert lamp["properties"]["lit_at"]["type"] == "number"


def test_moments_under_short_names_are_text(document):
    status = document["components"]["schemas"]["ServiceStatus"]
    assert status["properties"]["since"]["type"] == ["string", "null"]
    assert "since" in status["required"]


def test_the_document_has_every_path_that_is_served(api, document):
    documented = {(verb, re.sub(r"{\w+}", "{}", path)) for path, verbs in document["paths"].items() for verb in verbs}
    general = {("get", "/topics/{}/methods/{}"), ("post", "/topics/{}/methods/{}")}
    served = {(verb.lower(), path) for verb, path in api.application.routes if path not in PATHS_WITHOUT_DOCUMENT}
    assert served - documented == general


def test_the_document_is_not_sent_twice(api):
    tag = api.get("/openapi.json").headers["etag"]
    assert api.get("/openapi.json", headers={"if-none-match": tag}).status == 304


def test_the_document_needs_a_role_and_the_page_does_not(api):
    assert api.get("/openapi.json", role="anonymous").status == 401
    for path, kind in (("/docs", "text/html"), ("/docs/docs.css", "text/css"), ("/docs/docs.js", "text/javascript")):
        reply = api.get(path, role="anonymous")
        assert (reply.status, reply.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_the_page_asks_no_other_host_and_has_nothing_inline(api):
    page = b"".join(api.get(path, role="anonymous").body for path in ("/docs", "/docs/docs.css", "/docs/docs.js"))
    assert re.findall(rb"https?://|//\w+\.\w|innerHTML|<style|style=|onclick|eval\(", page) == []
    assert len(page) < 30_000
