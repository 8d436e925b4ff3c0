"""Captures requests that Oracle's own Python clients sign, as test vectors.

Run:  python3 -m venv .cache/venv-oci && .cache/venv-oci/bin/pip install oci oci-genai-auth httpx
      .cache/venv-oci/bin/python testdata/wire/signature/capture.py

Each file beside this script is one request as it stood on the wire. `key.pem` was
made for these vectors only and guards nothing; it is made anew if it is missing.
"""

import base64
import json
import pathlib
import socket
import subprocess
import threading
from email.utils import parsedate_to_datetime

import httpx
import oci
import requests

HERE = pathlib.Path(__file__).resolve().parent
KEY = HERE / "key.pem"
TENANCY = "ocid1.tenancy.oc1..aaaaaaaastubtenancy"
USER = "ocid1.user.oc1..aaaaaaaastubuser"
COMPARTMENT = "ocid1.compartment.oc1..aaaastub"
captured = []


def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, input=stdin).stdout


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    stream = connection.makefile("rb")
    while line := stream.readline():
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = []
        while (field := stream.readline()) not in (b"\r\n", b""):
            name, value = field.decode("latin-1").rstrip("\r\n").split(":", 1)
            headers.append([name, value.strip()])
        length = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
        body = stream.read(length)
        captured.append((method, target, headers, body))
        payload = b"[]" if method == "GET" else b"{}"
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(payload), payload)
        )


def keep(name, client, call):
    captured.clear()
    try:
        call()
    except Exception as error:  # The stub's answers are not what every client expects.
        if not captured:
            raise error
    method, target, headers, body = captured[0]
    date = next(v for n, v in headers if n.lower() == "date")
    vector = {
        "client": client,
        "now": int(parsedate_to_datetime(date).timestamp()),
        "method": method,
        "target": target,
        "headers": headers,
        "body_base64": base64.b64encode(body).decode(),
    }
    (HERE / f"{name}.json").write_text(json.dumps(vector, indent=2) + "\n")


def main():
    if not KEY.exists():
        openssl("genrsa", "-traditional", "-out", str(KEY), "2048")
    der = openssl("rsa", "-in", str(KEY), "-pubout", "-outform", "DER")
    fingerprint = openssl("md5", "-c", stdin=der).decode().split()[-1]
    (HERE / "key.pub.pem").write_bytes(openssl("rsa", "-in", str(KEY), "-pubout"))
    (HERE / "key.pkcs8.pem").write_bytes(openssl("pkcs8", "-topk8", "-nocrypt", "-in", str(KEY)))
    (HERE / "key.fingerprint").write_text(fingerprint + "\n")

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = {
        "user": USER,
        "tenancy": TENANCY,
        "fingerprint": fingerprint,
        "region": "us-chicago-1",
        "key_file": str(KEY),
    }
    sdk = f"oci {oci.__version__}"
    options = {"service_endpoint": endpoint, "retry_strategy": oci.retry.NoneRetryStrategy()}
    genai = oci.generative_ai.GenerativeAiClient(config, **options)
    inference = oci.generative_ai_inference.GenerativeAiInferenceClient(config, **options)
    identity = oci.identity.IdentityClient(config, **options)
    m = oci.generative_ai.models
    i = oci.generative_ai_inference.models

    keep("sdk-list-models", sdk, lambda: genai.list_models(COMPARTMENT, capability=["CHAT", "TEXT_EMBEDDINGS"]))
    keep("sdk-list-query-encoded", sdk, lambda: genai.list_models(COMPARTMENT, display_name="a b&c=ü/日本+%", limit=10))
    keep(
        "sdk-create-api-key",
        sdk,
        lambda: genai.create_api_key(
            m.CreateApiKeyDetails(
                display_name="mykey",
                compartment_id=COMPARTMENT,
                key_details=[m.KeyDetails(key_name="key-one"), m.KeyDetails(key_name="key-two")],
            )
        ),
    )
    keep("sdk-update-api-key", sdk, lambda: genai.update_api_key("ocid1.generativeaiapikey.oc1.x.y", m.UpdateApiKeyDetails(display_name="日本")))
    keep("sdk-delete-api-key", sdk, lambda: genai.delete_api_key("ocid1.generativeaiapikey.oc1.x.y"))
    keep("sdk-delete-escaped-path", sdk, lambda: identity.delete_api_key(USER, "aa:bb"))
    keep("sdk-create-policy", sdk, lambda: identity.create_policy(oci.identity.models.CreatePolicyDetails(compartment_id=COMPARTMENT, name="p", description="d", statements=["allow any-user to use generative-ai-family in tenancy"])))
    keep(
        "sdk-chat",
        sdk,
        lambda: inference.chat(
            i.ChatDetails(
                compartment_id=COMPARTMENT,
                serving_mode=i.OnDemandServingMode(model_id="meta.llama-3.3-70b-instruct"),
                chat_request=i.GenericChatRequest(messages=[i.UserMessage(content=[i.TextContent(text="大阪の名所は？")])], is_stream=True),
            )
        ),
    )

    signer = oci.signer.Signer(TENANCY, USER, fingerprint, str(KEY))
    raw = f"requests+oci.Signer {oci.__version__}"
    keep("signer-get-double-slash", raw, lambda: requests.get(f"{endpoint}//20231130/models", auth=signer))
    keep("signer-get-query-escapes", raw, lambda: requests.get(f"{endpoint}/openai/v1/models?x=a%20b&y=%C3%BC&z=%2F&e=", auth=signer))
    keep("signer-head", raw, lambda: requests.head(f"{endpoint}/readyz", auth=signer))
    keep("signer-post-empty", raw, lambda: requests.post(f"{endpoint}/20231130/x/actions/cancel", auth=signer))
    keep("signer-post-binary", raw, lambda: requests.post(f"{endpoint}/openai/v1/files", data=bytes(range(256)) * 40, headers={"content-type": "application/octet-stream"}, auth=signer))
    keep("signer-post-multipart", raw, lambda: requests.post(f"{endpoint}/openai/v1/files", files={"file": ("名.txt", b"hello\r\n\r\nworld")}, data={"purpose": "assistants"}, auth=signer))
    keep("signer-put", raw, lambda: requests.put(f"{endpoint}/20231130/apikeys/x", json={"displayName": "n2"}, auth=signer))
    keep("signer-patch", raw, lambda: requests.patch(f"{endpoint}/x", json={"a": 1}, auth=signer))

    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzdHViIn0.c3R1Yg"
    session = oci.auth.signers.SecurityTokenSigner(token, oci.signer.load_private_key_from_file(str(KEY)))
    keep("session-get", raw, lambda: requests.get(f"{endpoint}/20231130/models?compartmentId={COMPARTMENT}", auth=session))
    keep("session-post", raw, lambda: requests.post(f"{endpoint}/20231130/actions/v1/responses", json={"model": "m", "input": "i"}, auth=session))

    import oci_genai_auth

    config_file = HERE / ".config"
    config_file.write_text("[DEFAULT]\n" + "".join(f"{k}={v}\n" for k, v in config.items()))
    try:
        auth = oci_genai_auth.OciUserPrincipalAuth(config_file=str(config_file))
    finally:
        config_file.unlink()
    client = httpx.Client(auth=auth)
    keep("genai-auth-responses", "oci-genai-auth over httpx", lambda: client.post(f"{endpoint}/openai/v1/responses", json={"model": "m", "input": "大阪"}, headers={"authorization": "Bearer not-used"}))
    keep("genai-auth-models", "oci-genai-auth over httpx", lambda: client.get(f"{endpoint}/openai/v1/models?x=a%20b"))
    print(f"{len(list(HERE.glob('*.json')))} vectors in {HERE}")


main()
