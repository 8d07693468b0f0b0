"""Secrets: no log and no report of a running stage contains one."""

import json
import secrets

import pytest
import requests
import socketio
from sqlalchemy import text

TIMEOUT = 10  # seconds
HASHES = ("scrypt:", "$argon2")  # how the hash of a password begins


@pytest.fixture
def told(running_stage):
    """What must not be shown: the installation's secrets, a user's password, and their tokens."""
    url, nickname, password = running_stage.url, f"user-{secrets.token_hex(6)}", secrets.token_urlsafe(12)
    created = requests.post(f"{url}/api/users", json={"nickname": nickname, "password": password}, timeout=TIMEOUT)
    signed_in = requests.post(f"{url}/api/tokens", auth=(nickname, password), timeout=TIMEOUT)
    generated = json.loads((running_stage.run_folder / "secrets.json").read_text())
    token = signed_in.json()["token"]
    return {"url": url, "id": created.json()["id"], "token": token, "hidden": [*generated.values(), password, token]}


def test_no_log_and_no_report_contains_a_secret_also_when_requests_fail(stage, told):
    url, token = told["url"], told["token"]
    bad = f"{token}x"
    with stage.database(stage.differences["services"]["/api/users"]) as database:
        with database.begin() as connection:
            if database.dialect.name == "postgresql":  # whose message quotes the row that the constraint refuses
                connection.execute(text("ALTER TABLE users ADD CONSTRAINT sober CHECK (NOT online) NOT VALID"))
            else:
                connection.execute(text("ALTER TABLE users RENAME COLUMN online TO gone"))
        try:
            statuses = [
                requests.put(f"{url}/api/users/me", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT),
                requests.put(f"{url}/api/users/me", headers={"Authorization": f"Bearer {bad}"}, timeout=TIMEOUT),
                requests.post(
                    f"{url}/api/users?token={token}", json={"nickname": "a", "password": "x"}, timeout=TIMEOUT
                ),
                requests.post(f"{url}/api/tokens", auth=("nobody", told["hidden"][-2]), timeout=TIMEOUT),
            ]
            with socketio.SimpleClient() as client:
                client.connect(url, wait_timeout=TIMEOUT)
                for event, arguments in (("ping_user", token), ("ping_user", bad), ("post_message", ({}, token))):
                    client.call(event, arguments, timeout=TIMEOUT)
        finally:
            with database.begin() as connection:
                if database.dialect.name == "postgresql":
                    connection.execute(text("ALTER TABLE users DROP CONSTRAINT sober"))
                else:
                    connection.execute(text("ALTER TABLE users RENAME COLUMN gone TO online"))
    assert statuses[0].status_code >= 500

    shown = {str(file): file.read_text(errors="replace") for file in (stage.run_folder / "logs").rglob("*.log")}
    assert shown
    for command in ("status", "status --json", "doctor", "logs"):
        shown[command] = "".join(stage.popen(*command.split()).communicate(timeout=60))
    found = [
        (name, line)
        for name, content in shown.items()
        for line in content.splitlines()
        if any(secret in line for secret in (*told["hidden"], bad, *HASHES))
    ]
    assert found == []
