import base64
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.auth import check_token
from common.refusals import NotSignedIn

HOUR = 3600


def get(client, token):
    return client.get("/things", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def claims(ann):
    return {"user_id": ann, "iat": time.time(), "exp": int(time.time()) + HOUR, "jti": "x"}


def test_a_good_token_is_accepted(client, claims, private_key):
    assert get(client, jwt.encode(claims, private_key, "EdDSA")).status_code == 200


@pytest.mark.parametrize("claim", ["user_id", "iat", "exp", "jti"])
def test_a_token_that_lacks_a_claim_is_refused(client, claims, claim, private_key):
    del claims[claim]
    assert get(client, jwt.encode(claims, private_key, "EdDSA")).status_code == 401


def test_an_expired_token_is_refused(client, claims, private_key):
    assert get(client, jwt.encode({**claims, "exp": int(time.time()) - 1}, private_key, "EdDSA")).status_code == 401


def test_a_token_with_another_key_is_refused(client, claims):
    assert get(client, jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA")).status_code == 401


def test_a_token_without_a_signature_is_refused(client, claims):
    assert get(client, jwt.encode(claims, None, "none")).status_code == 401


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
def test_a_token_whose_hmac_secret_is_the_public_key_is_refused(client, claims, private_key, environ, algorithm):
    key = private_key.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for secret in (environ["JWT_PUBLIC_KEY"].encode(), key.public_bytes_raw(), pem, ssh):
        assert get(client, sign_with_hmac(claims, secret, algorithm)).status_code == 401


def sign_with_hmac(claims, secret, algorithm):
    """Return a token signed by hand, since PyJWT refuses to take a public key for a secret."""
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, text, "sha256")).rstrip(b"=")
    return (text + b"." + signature).decode()


INF = float("inf")


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("user_id", [True, "1", [1], {}, 1.0, 0, -1, 2**31, 2**80, INF]),
        ("iat", ["0", [], INF, -INF, float("nan"), 10**20, 10**400, True]),
        ("exp", ["9999999999", [], INF, float("nan"), 10**20, 9999999999.5, True]),
        ("jti", [1, [], {}, "x" * 65]),
    ],
)
def test_a_token_with_a_claim_of_another_kind_is_refused(client, claims, claim, values, private_key):
    for value in values:
        answer = get(client, jwt.encode({**claims, claim: value}, private_key, "EdDSA"))
        assert answer.status_code == 401, value


@pytest.mark.parametrize("token", ["\ud800", "é.é.é", "\0", "x" * 100_000, b"x.x.x", "." * 1000])
def test_odd_characters_are_no_token(context, token):
    with pytest.raises(NotSignedIn):
        check_token(token)


def test_a_token_outlives_a_clock_that_is_set_back(client, claims, private_key):
    assert get(client, jwt.encode({**claims, "iat": time.time() + HOUR}, private_key, "EdDSA")).status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Nonsense", "", "Basic \xff\xff", "Basic é"]
)
def test_a_bad_header_is_401_where_none_is_fine(client, header):
    assert client.get("/things").status_code == 200
    answer = client.get("/things", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Authentication Required"'
