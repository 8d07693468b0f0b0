"""Attacks with tokens: made without the key, with the key but not by us, and made to confuse whoever reads them."""

import base64
import hmac
import json
import time

import pytest
from contract.by_hand import send
from contract.conftest import Client
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HOUR = 3600
ORDER = 2**252 + 27742317777372353535851937790883648493  # L of Ed25519, by which S is reduced


@pytest.fixture(scope="module")
def ann(url):
    """A user whose tokens are forged; one for all, since registering takes longer than being refused."""
    client = Client(url).register()
    yield client
    client.http.close()


@pytest.fixture(scope="module")
def private_key(running_stage):
    """The private key as the platform stores it: 32 bytes in base64url."""
    return json.loads((running_stage.run_folder / "secrets.json").read_text())["JWT_PRIVATE_KEY"]


@pytest.fixture(scope="module")
def key(private_key):
    """The private key that tokens are signed with."""
    return Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(private_key + "="))


def encode(part: bytes) -> str:
    """Write a part of a JWT (RFC 7515): base64url without padding."""
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def sign(header: dict, claims: bytes, key: Ed25519PrivateKey) -> str:
    text = f"{encode(json.dumps(header).encode())}.{encode(claims)}"
    return f"{text}.{encode(key.sign(text.encode()))}"


def sign_with_hmac(header: dict, claims: bytes, secret: bytes, digest="sha256") -> str:
    text = f"{encode(json.dumps(header).encode())}.{encode(claims)}"
    return f"{text}.{encode(hmac.digest(secret, text.encode(), digest))}"


def claims_of(user, **changes) -> bytes:
    """Return good claims of a user, but for the changes; None leaves one out, and NaN is written as Python does."""
    claims = {"user_id": user.id, "iat": time.time(), "exp": int(time.time()) + HOUR, "jti": "forged"} | changes
    return json.dumps({name: value for name, value in claims.items() if value is not None}).encode()


HEADER = {"alg": "EdDSA", "typ": "JWT"}


def without_signature(user, key):
    """Tokens that ask not to be checked."""
    for algorithm in ("none", "None", "nOnE", "NONE", "", None, 0, [], {}):
        header = encode(json.dumps(HEADER | {"alg": algorithm}).encode())
        for signature in ("", "x", encode(b"\0" * 32), encode(b"\0" * 64)):
            yield f"{header}.{encode(claims_of(user))}.{signature}"


def with_another_algorithm(user, key):
    for algorithm in ("HS256", "RS256", "ES256", "PS256", "Ed25519", "Ed448", "eddsa", "EdDSA ", "x" * 1000):
        yield sign(HEADER | {"alg": algorithm}, claims_of(user), key)


def with_the_public_key_as_a_secret(user, key):
    """Tokens of the key-confusion attack: signed with HMAC, whose secret is the key that everybody may have."""
    public = key.public_key()
    raw = public.public_bytes_raw()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for secret in (raw, encode(raw).encode(), pem, pem.rstrip(), der, ssh):
        for algorithm, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512"), ("EdDSA", "sha256")):
            yield sign_with_hmac(HEADER | {"alg": algorithm}, claims_of(user), secret, digest)


def with_another_key(user, key):
    public = key.public_key().public_bytes_raw()
    for other in (b"\0" * 32, b"x" * 32, public, key.private_bytes_raw()[::-1]):
        yield sign(HEADER, claims_of(user), Ed25519PrivateKey.from_private_bytes(other))
    own = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    own_public = {"kty": "OKP", "crv": "Ed25519", "x": encode(own.public_key().public_bytes_raw())}
    for more in (
        {"jwk": own_public},
        {"kid": "../../../../dev/null"},
        {"kid": "' UNION SELECT 'x"},
        {"jku": "http://127.0.0.1:1/"},
        {"x5u": "http://127.0.0.1:1/", "x5c": ["x"]},
    ):
        yield sign(HEADER | more, claims_of(user), own)
        for secret in (b"", b"x" * 32):
            yield sign_with_hmac(HEADER | {"alg": "HS256"} | more, claims_of(user), secret)


def that_need_what_we_do_not_know(user, key):
    for more in ({"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"crit": "x"}, {"b64": False}):
        yield sign(HEADER | more, claims_of(user), key)


def without_a_claim(user, key):
    for name in ("user_id", "iat", "exp", "jti"):
        yield sign(HEADER, claims_of(user, **{name: None}), key)
    for claims in (b"{}", b"[]", b"null", b"1", b'"text"', b"", b"{", b"\xff", b"[" * 10_000):
        yield sign(HEADER, claims, key)


def out_of_time(user, key):
    for exp in (0, -1, int(time.time()) - 1, int(time.time()) - HOUR):
        yield sign(HEADER, claims_of(user, exp=exp), key)
    yield sign(HEADER, claims_of(user, nbf=int(time.time()) + HOUR), key)


def with_a_claim_of_another_kind(user, key):
    infinite, no_number, huge = float("inf"), float("nan"), 10**400
    for name, values in {
        "user_id": (str(user.id), [user.id], {}, True, float(user.id), 0, -1, 2**31, 2**64, huge, infinite, no_number),
        "iat": ("now", "0", [], {}, True, infinite, -infinite, no_number, huge, 10**17),
        "exp": ("never", "9999999999", [], {}, True, infinite, no_number, huge, 10**17),
        "jti": (1, [], {}, True, "x" * 65, "x" * 5000, "\ud800", "a\0b"),
    }.items():
        for value in values:
            yield sign(HEADER, claims_of(user, **{name: value}), key)
    yield sign(HEADER, claims_of(user, aud="somebody else"), key)


def of_nobody(user, key):
    yield sign(HEADER, claims_of(user, user_id=2**31 - 1), key)


def that_are_broken(user, key):
    good = user.token
    header, payload, signature = good.split(".")
    yield from (good[:-1], good[:-10], f"{header}.{payload}", f"{header}.{payload}.", f".{payload}.{signature}")
    yield from (f"{good}.{signature}", f"{header}. {payload}.{signature}", f"{good},{good}")
    text, raw = f"{header}.{payload}", base64.urlsafe_b64decode(signature + "==")
    added = (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")  # RFC 8032 refuses S of L and above
    yield from (f"{text}.{encode(raw[:32] + added)}", f"{text}.{encode(raw + raw)}", f"{text}.{encode(raw[:63])}")
    yield from (f'"{good}"', f"{good};", f"Bearer {good}", "x" * 7000, "." * 7000, "..", "e30.e30.e30")


FORGERIES = [
    without_signature,
    with_another_algorithm,
    with_the_public_key_as_a_secret,
    with_another_key,
    that_need_what_we_do_not_know,
    without_a_claim,
    out_of_time,
    with_a_claim_of_another_kind,
    of_nobody,
    that_are_broken,
]


def test_a_token_with_the_right_key_and_claims_is_accepted_so_the_others_are_refused_for_their_faults(
    ann, key, anonymous
):
    headers = {"Authorization": f"Bearer {sign(HEADER, claims_of(ann), key)}"}
    assert anonymous.get("/api/messages?limit=1", headers=headers).status_code == 200


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_tokens_are_refused_over_http_also_where_none_is_needed(ann, key, anonymous, forge):
    for token in forge(ann, key):
        headers = {"Authorization": f"Bearer {token}"}
        assert anonymous.get("/api/messages?limit=1", headers=headers).status_code == 401, token
        assert anonymous.put("/api/users/me", headers=headers).status_code == 401, token


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_tokens_are_refused_over_the_socket(ann, key, listen, until, forge):
    for token in forge(ann, key):
        listener = listen()  # another one for each: how many events a connection may send is limited
        for arguments in (["ping_user", token], ["post_message", {"source": "hello"}, token]):
            assert listener.call(*arguments)["status"] == 401, token
        until(lambda listener=listener: listener.refusals == 2, 2, "expired_token, each time")


@pytest.mark.parametrize("token", [None, 1, True, 1.5, [], {}, "\0", "é", "x" * 20_000, b"bytes", ["x"] * 100])
def test_what_is_no_text_is_no_token(ann, listen, token):
    answer = listen().call("ping_user", token)
    assert answer["status"] == 401
    assert answer["error"].endswith(".")


def test_two_tokens_in_one_request_are_refused(ann, url):
    for second in (ann.token, "x"):
        lines = [f"Authorization: Bearer {ann.token}", f"Authorization: Bearer {second}"]
        assert send(url, "GET /api/messages?limit=1 HTTP/1.1", *lines).status == 401
    lines = [f"Authorization: Bearer {ann.token}", "Authorization: Basic YTpi"]
    assert send(url, "PUT /api/users/me HTTP/1.1", *lines).status == 401


def test_only_the_service_that_issues_tokens_is_told_the_private_key(running_stage, private_key):
    issuer = "monolith" if running_stage.stage == "stage0" else "tokens"
    told = running_stage.run_folder / "instances"
    instances = {i["id"]: s["name"] for s in running_stage.status()["services"] for i in s["instances"]}
    files = [file for file in told.glob("*.json") if file.stem in instances]
    assert {instances[file.stem] for file in files if private_key in file.read_text()} == {issuer}
    if running_stage.stage != "stage0":  # there, Celery's workers run the monolith's build, with all of its secrets
        programs = (running_stage.run_folder / "supervisor").rglob("*.conf")
        assert [file for file in programs if private_key in file.read_text()] == []
