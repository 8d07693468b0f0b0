"""Secrets: random text, and key pairs of which only the private key is stored."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from workshop import paths, stage
from workshop.secrets import secret


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A file of secrets that is not there yet."""
    monkeypatch.setattr(paths, "SECRETS", tmp_path / "secrets.json")
    return paths.SECRETS


def private_key(name):
    return Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(secret(name) + "="))


def public_key(name):
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(secret(name) + "="))


def test_a_secret_is_generated_once_and_readable_by_its_owner_only(file):
    assert secret("REDIS_PASSWORD") == secret("REDIS_PASSWORD") != secret("ANOTHER_PASSWORD")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("first", ["JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY"])
def test_a_public_key_checks_what_its_private_key_has_signed(file, first):
    secret(first)
    public_key("JWT_PUBLIC_KEY").verify(private_key("JWT_PRIVATE_KEY").sign(b"text"), b"text")
    with pytest.raises(InvalidSignature):
        public_key("OTHER_PUBLIC_KEY").verify(private_key("JWT_PRIVATE_KEY").sign(b"text"), b"text")
    assert json.loads(file.read_text()).keys() == {"JWT_PRIVATE_KEY", "OTHER_PRIVATE_KEY"}


BRIDGE = stage.read("bridge", stage.stages()["stage1"] / "bridge")


@pytest.mark.parametrize(
    ("one", "issuer"),
    [
        (stage.load("stage0"), "monolith"),
        (BRIDGE, "monolith"),
        (stage.load("stage1"), "tokens"),
        (stage.load("stage2"), "tokens"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_one_service_of_a_stage_signs_tokens_and_all_but_the_page_check_them(one, issuer):
    signing = [name for name, service in one.services.items() if "JWT_PRIVATE_KEY" in service.secrets]
    checking = [name for name, service in one.services.items() if "JWT_PUBLIC_KEY" in service.secrets]
    assert signing == [issuer]
    assert checking == [name for name in one.services if name != "ui"]
