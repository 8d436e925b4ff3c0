"""TLS with a certificate of our own making, which is replaced while the server runs."""

import datetime
import ipaddress
import socket
import ssl
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from openai import OpenAI

from conftest import SCRIPTED, free_port, secret

TLS = """
[tls]
certificate = "{0}/cert.pem"
key = "{0}/key.pem"
"""


def make_certificate(folder, name):
    """A certificate for 127.0.0.1 with `name` as its subject, in two files that are replaced as tools do."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256()))
    for file, data in [
        ("key.pem", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())),
        ("cert.pem", certificate.public_bytes(serialization.Encoding.PEM)),
    ]:
        (folder / f"{file}.new").write_bytes(data)
        (folder / f"{file}.new").rename(folder / file)
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


def subject_of(port):
    """The subject of the certificate that the server shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        with context.wrap_socket(raw) as wrapped:
            certificate = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True))
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


@pytest.fixture
def encrypted(honshu):
    """A server behind TLS. Commands and keys are made through a plain one before."""
    port = free_port()
    honshu.start(SCRIPTED.format(port=port), port=port)
    honshu.key = honshu.make_key()
    honshu.stop()
    honshu.trust = make_certificate(honshu.data_dir, "first")
    honshu.start(SCRIPTED.format(port=port) + TLS.format(honshu.data_dir))
    honshu.url, honshu.port = f"https://127.0.0.1:{port}", port
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if httpx.get(honshu.url + "/readyz", verify=honshu.trust).status_code == 200:
                return honshu
        except httpx.TransportError:
            assert honshu.process.poll() is None, honshu.server_log()
            time.sleep(0.05)
    raise AssertionError(honshu.server_log())


def test_the_sdk_speaks_tls_and_strangers_to_it_get_nothing(encrypted):
    sdk = OpenAI(api_key=secret(encrypted.key), base_url=encrypted.url + "/v1", max_retries=0,
                 http_client=httpx.Client(verify=encrypted.trust))
    assert sdk.responses.create(model="honshu.scripted", input="Reply with exactly: yes").output_text == "yes"
    pieces = sdk.chat.completions.create(
        model="honshu.scripted", messages=[{"role": "user", "content": "Reply with exactly: a b c"}], stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "a b c"
    with pytest.raises(httpx.ConnectError):
        httpx.get(encrypted.url + "/readyz")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{encrypted.port}/readyz")
    # An old protocol is not spoken.
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        with socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as raw:
            old.wrap_socket(raw)


def test_a_new_certificate_is_served_without_a_restart(encrypted):
    assert subject_of(encrypted.port) == "first"
    headers = {"authorization": f"Bearer {secret(encrypted.key)}"}
    with httpx.Client(verify=encrypted.trust, headers=headers, limits=httpx.Limits(keepalive_expiry=60)) as kept:
        assert kept.get(encrypted.url + "/v1/models").status_code == 200
        # Broken files change nothing.
        (encrypted.data_dir / "cert.pem").write_text("not a certificate")
        time.sleep(4)
        assert subject_of(encrypted.port) == "first"
        trust = make_certificate(encrypted.data_dir, "second")
        deadline = time.monotonic() + 20
        while subject_of(encrypted.port) != "second" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert subject_of(encrypted.port) == "second"
        # New connections trust the new one, and the old connection goes on.
        assert httpx.get(encrypted.url + "/v1/models", verify=trust, headers=headers).status_code == 200
        assert kept.get(encrypted.url + "/v1/models").status_code == 200
    assert encrypted.stop() == 0
