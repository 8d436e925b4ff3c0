"""The life of a key as its caller sees it: one 401 for every reason, rotation without a failed request, and policies
that take effect at once."""

import datetime
import threading
import time

import httpx
import pytest

from conftest import DIALECTS, body_of, free_port, secret

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

TWO_REGIONS = """
[[region]]
name = "ap-osaka-1"
listen = "127.0.0.1:{}"
[[region]]
name = "us-chicago-1"
listen = "127.0.0.1:{}"
[[provider]]
name = "scripted"
kind = "scripted"
[[model]]
id = "honshu.scripted"
[[model.deployment]]
provider = "scripted"
"""


def refusal(response):
    """What of an answer could tell one reason from another: all but the request's ids and the date."""
    headers = {
        name: value for name, value in response.headers.items()
        if name not in ("date", "x-request-id", "opc-request-id")
    }
    return response.status_code, headers, response.content


def with_header(url, header, dialect="responses"):
    headers = {} if header is None else {"authorization": header}
    return httpx.post(url + DIALECTS[dialect], headers=headers, json=body_of(dialect, "hi"))


def test_every_bad_key_gets_the_same_401(shared):
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    key = shared.make_key(name="bad", allow=False, key_one_expires=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    expired, inactive = secret(key, "one"), secret(key, "two")
    other = shared.make_key(name="bad-2", allow=False)
    revoked, gone = secret(other, "one"), secret(other, "two")
    for value in (expired, inactive, revoked, gone):
        assert shared.ask(secret_value=value).status_code == 200
    shared.run("api-key", "set-state", "--api-key-id", key["id"], "--key-name", "two", "--state", "INACTIVE")
    shared.run("api-key", "set-state", "--api-key-id", other["id"], "--key-name", "one", "--state", "REVOKED")
    time.sleep(max(0, soon.timestamp() - time.time()) + 0.05)
    bad_sum = expired[:-1] + ALPHABET[(ALPHABET.index(expired[-1]) + 1) % 62]
    unknown = "sk-" + "A" * 42 + checksum("A" * 42)
    answers = {
        "none": None, "empty": "", "scheme only": "Bearer", "garbage": "Bearer garbage",
        "sk-": "Bearer sk-", "basic": "Basic dXNlcjpwYXNz", "long": "Bearer sk-" + "a" * 5000, "bad checksum": f"Bearer {bad_sum}",
        "unknown": f"Bearer {unknown}", "expired": f"Bearer {expired}", "inactive": f"Bearer {inactive}",
        "revoked": f"Bearer {revoked}", "not utf-8": b"Bearer sk-\xff\xfe",
        "bad signature": 'Signature version="1",keyId="a/b/c",algorithm="rsa-sha256",headers="date",signature="eA=="',
    }
    for dialect in DIALECTS:
        seen = {name: refusal(with_header(shared.url, header, dialect)) for name, header in answers.items()}
        assert seen["none"][0] == 401 and b"invalid_api_key" in seen["none"][2]
        assert seen["none"][1].get("www-authenticate", "Bearer").startswith("Bearer")
        assert {name: answer for name, answer in seen.items() if answer != seen["none"]} == {}
    for path in ("/v1/models", "/v1/models/honshu.scripted"):
        seen = [
            refusal(httpx.get(shared.url + path, headers={} if header is None else {"authorization": header}))
            for header in answers.values()
        ]
        assert seen[0][0] == 401 and all(answer == seen[0] for answer in seen)
    # What is deleted is nobody, and what is taken back into use serves again.
    shared.run("api-key", "set-state", "--api-key-id", key["id"], "--key-name", "two", "--state", "ACTIVE")
    assert shared.ask(secret_value=inactive).status_code == 200
    shared.run("api-key", "delete", "--api-key-id", other["id"])
    assert refusal(with_header(shared.url, f"Bearer {gone}")) == refusal(with_header(shared.url, None))


def checksum(text: str) -> str:
    import zlib
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = ALPHABET[digit] + digits
    return digits


def test_two_credentials_are_a_bad_request(shared):
    answer = httpx.post(
        shared.url + "/v1/responses", json=body_of("responses", "hi"),
        headers=[("authorization", f"Bearer {secret(shared.key)}"), ("authorization", "Bearer x")])
    assert answer.status_code == 400


def test_a_revoked_secret_stays_revoked(shared):
    key = shared.make_key(name="final", allow=False)
    ids = ("--api-key-id", key["id"], "--key-name", "one")
    shared.run("api-key", "set-state", *ids, "--state", "REVOKED")
    again = shared.run("api-key", "set-state", *ids, "--state", "ACTIVE", check=False)
    assert again.returncode == 1 and "revoked" in again.stderr.lower()
    assert shared.ask(secret_value=secret(key, "one")).status_code == 401
    assert shared.ask(secret_value=secret(key, "two")).status_code == 200


def test_renewal_under_load_fails_no_request_of_the_other_secret(shared):
    key = shared.make_key(name="rotating", allow=False)
    statuses, over = [], threading.Event()

    def serve():
        with httpx.Client(headers={"authorization": f"Bearer {secret(key, 'two')}"}) as client:
            while not over.is_set():
                answer = client.post(shared.url + "/v1/responses", json=body_of("responses", "hi"))
                statuses.append(answer.status_code)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    old = secret(key, "one")
    try:
        for _ in range(5):
            assert shared.ask(secret_value=old).status_code == 200
            renewed = shared.json("api-key", "renew", "--api-key-id", key["id"], "--key-name", "one")
            fresh = secret(renewed, "one")
            assert fresh != old and next(k for k in renewed["keys"] if k["keyName"] == "two").get("key") is None
            # The old value ends with the answer that shows the new one.
            assert shared.ask(secret_value=old).status_code == 401
            assert shared.ask(secret_value=fresh).status_code == 200
            old = fresh
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert len(statuses) > 20 and set(statuses) == {200}


def test_without_a_policy_every_model_is_unknown(honshu):
    port = free_port()
    from conftest import SCRIPTED
    honshu.start(SCRIPTED.format(port=port), port=port)
    honshu.key = honshu.make_key(allow=False)
    for dialect in DIALECTS:
        there = honshu.ask(dialect=dialect)
        absent = honshu.ask(dialect=dialect, model="honshu.nothing0")
        assert there.status_code == absent.status_code == 404
        assert there.json()["error"]["code"] == "model_not_found"
        assert there.headers["opc-decision-id"] and absent.headers["opc-decision-id"]
        assert there.headers["opc-decision-id"] != absent.headers["opc-decision-id"]
        assert there.text.replace("honshu.scripted", "honshu.nothing0") == absent.text
        assert {*there.headers} == {*absent.headers}
    headers = {"authorization": f"Bearer {secret(honshu.key)}"}
    assert httpx.get(honshu.url + "/v1/models", headers=headers).json()["data"] == []
    one, none = (httpx.get(f"{honshu.url}/v1/models/{name}", headers=headers) for name in ("honshu.scripted", "honshu.nothing0"))
    assert one.status_code == none.status_code == 404
    assert one.text.replace("honshu.scripted", "honshu.nothing0") == none.text

    # A policy takes effect with the answer to its creation, and ends with that to its deletion.
    for _ in range(3):
        policy = honshu.json(
            "policy", "create", "--compartment", "root", "--name", "chat", "--statement",
            "allow any-user to use generative-ai-chat in tenancy where request.principal.type = 'generativeaiapikey'")
        assert honshu.ask().status_code == 200
        assert [m["id"] for m in httpx.get(honshu.url + "/v1/models", headers=headers).json()["data"]] == ["honshu.scripted"]
        honshu.run("policy", "delete", "--policy-id", policy["id"])
        assert honshu.ask().status_code == 404
    # An allowed caller may know that a model is not there, in the same words.
    honshu.run("policy", "create", "--compartment", "root", "--name", "chat", "--statement",
               "allow any-user to use generative-ai-chat in tenancy")
    assert honshu.ask(model="honshu.nothing0").text == absent.text.replace("chat", "chat")


def test_a_policy_that_names_one_model_and_one_key(honshu):
    from conftest import SCRIPTED
    port = free_port()
    honshu.start(SCRIPTED.format(port=port) + """
[[model]]
id = "other.scripted"
[[model.deployment]]
provider = "scripted"
[[alias]]
name = "short"
model = "other.scripted"
""", port=port)
    honshu.key = honshu.make_key(allow=False)
    other = honshu.make_key(name="other", allow=False)
    honshu.run("policy", "create", "--compartment", "root", "--name", "one", "--statement",
               "allow any-user to use generative-ai-chat in tenancy where all "
               f"{{request.principal.id = '{honshu.key['id']}', target.model.id = 'other.scripted'}}")
    assert honshu.ask(model="other.scripted").status_code == 200
    # An alias is decided by the model behind it, and the answer names that model.
    assert honshu.ask(model="short").json()["model"] == "other.scripted"
    assert honshu.ask(model="honshu.scripted").status_code == 404
    assert honshu.ask(model="other.scripted", secret_value=secret(other)).status_code == 404


def test_a_key_of_one_region_is_nobody_in_the_other(honshu):
    osaka, chicago = free_port(), free_port()
    honshu.start(TWO_REGIONS.format(osaka, chicago), port=osaka)
    keys = {region: honshu.make_key(name=region, region=region, allow=region == "ap-osaka-1") for region in ("ap-osaka-1", "us-chicago-1")}
    urls = {"ap-osaka-1": f"http://127.0.0.1:{osaka}", "us-chicago-1": f"http://127.0.0.1:{chicago}"}
    garbage = refusal(with_header(urls["ap-osaka-1"], "Bearer garbage"))
    for home, key in keys.items():
        for region, url in urls.items():
            answer = with_header(url, f"Bearer {secret(key)}")
            if region == home:
                assert answer.status_code == 200
            else:
                assert refusal(answer) == garbage


@pytest.mark.parametrize("path", ["/20231130/apikeys", "/20160918/policies", "/20160918/compartments"])
def test_a_secret_opens_no_management_path(shared, path):
    answers = [
        httpx.get(shared.url + path, params={"compartmentId": "x"}, headers=headers)
        for headers in ({}, {"authorization": f"Bearer {secret(shared.key)}"}, {"authorization": "Bearer garbage"})
    ]
    assert answers[0].status_code == 401 and answers[0].json()["code"] == "NotAuthenticated"
    assert refusal(answers[0]) == refusal(answers[1]) == refusal(answers[2])
