"""OCI's own SDK and command line, unmodified, with the administrator's profile as `honshu init` wrote it."""

import json
import os
import subprocess
import sys

import httpx
import oci
import pytest

from conftest import secret


@pytest.fixture
def profile(scripted):
    return oci.config.from_file(str(scripted.data_dir / "admin/config"))


def test_the_oci_command_line_creates_a_key_that_works(scripted):
    tenancy = oci.config.from_file(str(scripted.data_dir / "admin/config"))["tenancy"]
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "oci"), "--config-file", scripted.data_dir / "admin/config",
         "generative-ai", "api-key", "create", "--endpoint", scripted.url, "-c", tenancy, "--display-name", "by-oci",
         "--key-details", '[{"keyName":"key-one","timeExpiry":"2099-02-20T12:00:00Z"},{"keyName":"key-two"}]'],
        capture_output=True, text=True, timeout=120,
        env=scripted.environment(SUPPRESS_LABEL_WARNING="True", OCI_CLI_SUPPRESS_FILE_PERMISSIONS_WARNING="True"),
    )
    assert done.returncode == 0, done.stderr
    key = json.loads(done.stdout)["data"]
    assert key["lifecycle-state"] == "ACTIVE" and len(key["keys"]) == 2
    answer = httpx.post(
        scripted.url + "/v1/responses", headers={"authorization": f"Bearer {key['keys'][0]['key']}"},
        json={"model": "honshu.scripted", "input": "Reply with exactly: yes"})
    assert answer.status_code == 200, answer.text


def test_the_oci_sdk_lives_through_a_keys_life(scripted, profile):
    client = oci.generative_ai.GenerativeAiClient(
        profile, service_endpoint=scripted.url, retry_strategy=oci.retry.NoneRetryStrategy())
    models = oci.generative_ai.models
    made = client.create_api_key(models.CreateApiKeyDetails(
        display_name="sdk", compartment_id=profile["tenancy"],
        key_details=[models.KeyDetails(key_name="a"), models.KeyDetails(key_name="b")]))
    key, etag = made.data, made.headers["etag"]
    assert [item.state for item in key.keys] == ["ACTIVE", "ACTIVE"] and key.keys[0].key.startswith("sk-")
    listed = oci.pagination.list_call_get_all_results(client.list_api_keys, profile["tenancy"], limit=1).data
    assert key.id in [item.id for item in listed] and all(item.keys[0].key is None for item in listed)
    with pytest.raises(oci.exceptions.ServiceError) as stale:
        client.update_api_key(key.id, models.UpdateApiKeyDetails(display_name="x"), if_match="nonsense")
    assert (stale.value.status, stale.value.code) == (412, "NoEtagMatch")
    client.update_api_key(key.id, models.UpdateApiKeyDetails(display_name="renamed"), if_match=etag)
    renewed = client.renew_api_key(key.id, models.RenewApiKeyDetails(details=models.KeyDetails(key_name="a"))).data
    shown = {item.key_name: item.key for item in renewed.keys}
    assert shown["a"] not in (None, key.keys[0].key) and shown["b"] is None
    client.set_api_key_state(key.id, models.SetApiKeyStateDetails(key_name="b", state="REVOKED"))
    assert {i.key_name: i.state for i in client.get_api_key(key.id).data.keys} == {"a": "ACTIVE", "b": "REVOKED"}
    client.delete_api_key(key.id)
    with pytest.raises(oci.exceptions.ServiceError) as gone:
        client.get_api_key(key.id)
    assert (gone.value.status, gone.value.code) == (404, "NotAuthorizedOrNotFound")


def test_the_oci_sdk_lists_models_and_identity(scripted, profile):
    client = oci.generative_ai.GenerativeAiClient(profile, service_endpoint=scripted.url)
    assert [m.display_name for m in client.list_models(profile["tenancy"]).data.items] == ["honshu.scripted"]
    identity = oci.identity.IdentityClient(profile, service_endpoint=scripted.url)
    made = identity.create_compartment(oci.identity.models.CreateCompartmentDetails(
        compartment_id=profile["tenancy"], name="dev", description="d")).data
    assert made.id in [c.id for c in identity.list_compartments(profile["tenancy"]).data]
    with pytest.raises(oci.exceptions.ServiceError) as bad:
        identity.create_policy(oci.identity.models.CreatePolicyDetails(
            compartment_id=made.id, name="p", description="d", statements=["allow any-user to fly in tenancy"]))
    assert bad.value.status == 400 and "fly" in bad.value.message
    assert identity.get_tenancy(profile["tenancy"]).data.id == profile["tenancy"]
    assert [r.name for r in identity.list_regions().data] == ["local-1"]
    with pytest.raises(oci.exceptions.ServiceError) as unbuilt:
        identity.list_users(profile["tenancy"])
    assert unbuilt.value.status == 501


def test_a_wrong_signing_key_is_refused_and_a_bearer_key_cannot_manage(scripted, profile):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = scripted.data_dir / "other.pem"
    path.write_bytes(other)
    path.chmod(0o600)
    client = oci.generative_ai.GenerativeAiClient(
        dict(profile, key_file=str(path)), service_endpoint=scripted.url, retry_strategy=oci.retry.NoneRetryStrategy())
    with pytest.raises(oci.exceptions.ServiceError) as refused:
        client.list_api_keys(profile["tenancy"])
    assert (refused.value.status, refused.value.code) == (401, "NotAuthenticated")
    bearer = httpx.get(scripted.url + "/20231130/apikeys", params={"compartmentId": profile["tenancy"]},
                       headers={"authorization": f"Bearer {secret(scripted.key)}"})
    assert bearer.status_code == 401
