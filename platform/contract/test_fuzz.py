"""Fuzzing: requests that the OpenAPI document allows, and requests that it does not, made up by Schemathesis.

No request may fail with 5xx, be answered otherwise than documented, be refused although it is right, or be let through
although it is wrong. What is made up is the same in each run.
"""

import sys
import unicodedata
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import schemathesis
from contract.conftest import Client
from hypothesis import strategies
from precis_i18n import get_profile
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth

EXAMPLES = 40  # per call of the API, half of them wrong; and the limits of each value besides
SCHEMA = schemathesis.openapi.from_path(
    Path(__file__).with_name("openapi.yaml"),
    config=SchemathesisConfig.from_dict(
        {
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
            # Right requests that meet what was there before: a nickname, an idempotency key, too many wrong passwords.
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, 404, 409, 422, 429]}},
        }
    ),
)
SIGNS_OUT = ("DELETE /api/tokens", "PUT /api/users/{user_id}")
MAX_ID = 2**31 - 1
CURSOR = "one-of-ours"  # stands for a cursor, which only the API can make

profile = get_profile("NicknameCasePreserved")
blanks = ":\u2800\ufffc\U0001d159\U00016fe4"


def is_nickname(text: str) -> bool:
    """Return whether a text is a nickname as the document describes it."""
    try:
        stored = profile.enforce(text)
    except UnicodeEncodeError:
        return False
    is_visible = not unicodedata.category(stored[0]).startswith("M") and not set(stored) & set(blanks)
    return is_visible and len(stored) <= 32 and text == text.strip()


allowed = [chr(code) for code in range(sys.maxunicode + 1) if is_nickname(f"a{chr(code)}")]
nicknames = strategies.text(strategies.sampled_from(allowed), min_size=1, max_size=32).filter(is_nickname)
schemathesis.openapi.format("nickname", nicknames)
schemathesis.openapi.format("cursor", strategies.just(CURSOR))


class Fuzzer(Client):
    """Somebody at an address of their own, since wrong passwords from there are soon refused unseen."""

    def prepare(self) -> "Fuzzer":
        """Have something of one's own, and something of somebody else's, that requests can be about."""
        other = Client(self.url).register()
        self.register()
        self.ids = {
            "user_id": (self.id, other.id),
            "message_id": (self.say("mine")["id"], other.say("somebody else's")["id"]),
        }
        other.http.close()
        self.cursors = {path: self.find_cursor(path) for path in ("/api/users", "/api/messages")}
        del self.http.headers["Authorization"]
        return self

    def find_cursor(self, path: str) -> str:
        """Return the cursor of a list's second page."""
        newest = self.get(f"{path}?limit=1").json()
        (cursor,) = parse_qs(urlsplit(newest["_links"]["next"]).query)["cursor"]
        return cursor

    def send_case(self, case, headers: dict[str, str] | None = None) -> requests.Response:
        """Send a request that was made up, and look whether the answer is as documented."""
        for name, known in self.ids.items():
            number = case.path_parameters.get(name)
            if isinstance(number, int) and 0 <= number <= MAX_ID:
                # A third become ours, a third somebody else's; of the others there is hardly ever such a thing.
                case.path_parameters[name] = (*known, number)[number % 3]
        if case.query.get("cursor") == CURSOR:
            case.query["cursor"] = self.cursors[case.operation.path]
        # What this check would try, wrong passwords, is soon answered by 429 instead of 401.
        excluded = [ignored_auth] if takes_password(case.operation) else []
        return case.call_and_validate(self.url, session=self.http, headers=headers, excluded_checks=excluded)

    def send_case_signed_in(self, case) -> None:
        """Do the same with the token, or nickname and password, that the call takes; then sign in again if needed."""
        basic = requests.auth._basic_auth_str(*self.credentials)
        authorization = basic if takes_password(case.operation) else f"Bearer {self.token}"
        answer = self.send_case(case, {"Authorization": authorization})
        assert answer.status_code not in (401, 429), answer.text  # or else nothing behind the door would be tested
        if answer.status_code == 204 and case.operation.label in SIGNS_OUT:
            if case.method == "PUT":
                self.nickname = case.body.get("nickname", self.nickname)
                self.password = case.body.get("password", self.password)
            self.sign_in()  # so this also shows that whoever has registered can sign in
            del self.http.headers["Authorization"]


def takes_password(operation) -> bool:
    return {"password": []} in operation.definition.raw["security"]


@pytest.fixture(scope="module")
def user(url):
    fuzzer = Fuzzer(url, "127.0.0.8").prepare()
    yield fuzzer
    fuzzer.http.close()


@pytest.fixture(scope="module")
def stranger(url):
    fuzzer = Fuzzer(url, "127.0.0.9").prepare()
    yield fuzzer
    fuzzer.http.close()


@SCHEMA.parametrize()
def test_every_answer_to_a_user_is_as_documented(case, user, stranger):
    if SCHEMA.is_security_param_negated(case):  # what is wrong with it is the very header that says who we are
        stranger.send_case(case)
    else:
        user.send_case_signed_in(case)


@SCHEMA.exclude(operation_id="register").parametrize()
def test_every_answer_to_a_stranger_is_as_documented(case, stranger):
    stranger.send_case(case)
