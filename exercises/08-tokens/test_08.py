"""The check: the learner's tokens.py runs as a version of the tokens service, and people sign in and out."""

import base64
import re
import subprocess
import sys
import time
from functools import partial

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from requests.adapters import HTTPAdapter
from sqlalchemy import create_engine, text

from workshop import secrets
from workshop.probe import session
from workshop.sidecar import Instance
from workshop.verdict import CannotCheck, Hop, Wrong
from workshop.waiting import wait_until

HOUR = 60 * 60
CLAIMS = ["exp", "iat", "jti", "user_id"]
# What changes nothing, and needs a good token: the first is answered with 400 then.
ASKS = {"tokens": ("DELETE", "/api/tokens?all=malformed"), "monolith": ("GET", "/api/messages?limit=1")}
# In a log, so that a traceback shows the learner's own lines.
FRAMES_OF_LIBRARIES = re.compile(r'(?m)^  File ".*/site-packages/.*\n(    .*\n)+')
ANSWERED_WITHIN = 10  # seconds: longer than the load balancer lets any request take
# The monolith fetches the list every second, 2 s are promised. Here with room for a machine that is busy.
EVERYWHERE_WITHIN = 5  # seconds
SIGN_INS = 3  # of which the time of issue is compared
WRONG_PASSWORDS = 10  # a minute, for one nickname at one address: then users answers 429
ELSEWHERE = "127.0.0.2"  # an address of this machine, from which no other client signs in
CHECK_ALONE_TIMEOUT = 20  # seconds for a Python program to start, and to check a token; measured: 1
# Checks a token as a service does that has the public key alone. Prints OK, or how that ended.
CHECK_ALONE = """
import sys
from parley import create_app
from parley.api.tokens import check_token
app = create_app()
del app.config["JWT_PRIVATE_KEY"]
with app.test_request_context():
    try:
        check_token(sys.argv[1])
        print("OK")
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.timeout(75)
@pytest.mark.filterwarnings("ignore:The HMAC key is")  # the check signs with HS512, for which the key is short
def test_people_sign_in_and_out(learner, stage):
    learner.text("tokens.py")  # not done yet while a TODO stands in it
    ann, bob = stage.user(), stage.user()  # signed in by the stage's own tokens
    with stage.deployed("tokens", {"parley/api/tokens.py": learner.path("tokens.py")}):
        check = Check(stage)
        check.users_is_asked_for_the_password(ann)
        check.wrong_passwords_count_at_the_clients_address(bob)
        check.a_token_says_what_the_others_read(ann)
        check.a_token_is_issued_before_the_password_is_checked(ann)
        check.the_public_key_is_enough_to_check(ann)
        check.what_somebody_else_made_is_refused(ann)
        check.signing_out_ends_this_token(ann)
        check.signing_out_everywhere_ends_all_until_now(ann, bob)
        check.a_revocation_is_kept_for_as_long_as_the_tokens_live(bob)


class Check:
    """What the service must do, in the order in which a token meets it."""

    def __init__(self, stage):
        self.stage = stage
        self.sizes = {service: len(stage.instances(service)) for service in ASKS}
        private_key = base64.urlsafe_b64decode(secrets.secret("JWT_PRIVATE_KEY") + "=")
        self.private_key = Ed25519PrivateKey.from_private_bytes(private_key)
        # All that a service that only checks tokens has, as text: what its own process was told.
        self.public_key = self.environment("monolith")["JWT_PUBLIC_KEY"]
        self.http = session()
        self.the_list = f"curl -s {stage.internal_url}/internal/tokens/revocations"

    def users_is_asked_for_the_password(self, person):
        self.token_of(person)
        answer = self.sign_in(person, person.password)
        hops = [f"{hop.backend} {hop.method} {hop.path}" for hop in self.stage.hops(answer.headers["X-Request-ID"])]
        asked = ["monolith GET /api/users/me", "tokens POST /api/tokens"]  # who is asked last has answered first
        self.expect(
            hops == asked,
            "Who has which password, only users knows, which is in the monolith still: it is asked once per sign-in.",
            seen="answered: " + ", ".join(hops),
            expected="answered: " + ", ".join(asked),
            show="./workshop logs haproxy",
        )
        answer = self.sign_in(person, "not the password")
        self.expect(
            answer.status_code == 401,
            "A wrong password is not refused as users has refused it.",
            seen=f"POST /api/tokens: {answer.status_code}",
            expected="401",
        )

    def wrong_passwords_count_at_the_clients_address(self, person):
        """Enter wrong passwords from another address until users refuses more of them, then sign in from here."""
        path = "/api/tokens"
        with session() as elsewhere:
            elsewhere.mount("http://", FromElsewhere())
            for _ in range(WRONG_PASSWORDS):
                credentials = (person.nickname, "not the password")
                elsewhere.post(self.stage.url + path, auth=credentials, timeout=ANSWERED_WITHIN)
        answer = self.sign_in(person, person.password)
        self.expect(
            answer.status_code != 429,
            "A stranger who tries wrong passwords locks the user out everywhere: tokens does not tell users where "
            "a request came from.",
            seen=f"after {WRONG_PASSWORDS} wrong passwords from {ELSEWHERE}, the right one from 127.0.0.1 gets 429",
            expected="200: the header X-Forwarded-For names the client, by which users counts",
            show="sed -n '/^def check_password/,/^def issue_token/p' work/08-tokens/tokens.py",
        )

    def a_token_says_what_the_others_read(self, person):
        token = self.token_of(person)
        claims = read(token)
        self.expect(
            "exp" in claims,
            "The token has no exp. It would be good for ever, also for whoever finds it in a log.",
            seen=f"the claims {', '.join(sorted(claims))}",
            expected=f"the claims {', '.join(CLAIMS)}",
        )
        self.expect(
            sorted(claims) == CLAIMS and claims["user_id"] == person.id and is_number(claims["iat"], claims["exp"]),
            "The token does not say what the other services read in it.",
            seen=f"{claims}",
            expected=f"the claims {', '.join(CLAIMS)}; user_id is {person.id}, times are numbers",
        )
        self.expect(
            abs(claims["exp"] - claims["iat"] - HOUR) <= 1,
            "The token does not live for an hour.",
            seen=f"exp is {claims['exp'] - claims['iat']:.0f} s after iat",
            expected=f"{HOUR} s",
        )
        self.expect(
            claims["jti"] != read(self.token_of(person))["jti"],
            "Two tokens have the same jti: who signs out on one page would be signed out on another.",
            seen="one jti in two tokens",
            expected="a jti of its own in each",
        )
        self.expect(
            self.takes("tokens", token) and self.takes("monolith", token),
            "A new token is refused. Each service checks it by itself, with the public key and the agreed algorithm.",
            seen=f"401; the header of the token is {jwt.get_unverified_header(token)}",
            expected="accepted by tokens and by the monolith: EdDSA, signed with JWT_PRIVATE_KEY",
        )

    def a_token_is_issued_before_the_password_is_checked(self, person):
        """Compare iat with how long users takes: all of that time is between the two, in each sign-in."""
        ages = []
        for _ in range(SIGN_INS):
            answer = self.sign_in(person, person.password)
            ages.append((time.time() - read(answer.json()["token"])["iat"], self.seconds_of_users(answer)))
        age, checked = min(ages, key=lambda both: both[0] - both[1])
        self.expect(
            age >= checked,
            "iat is a time after the password check. If the password changes during the check, a token for the old "
            "password counts as new.",
            seen=f"iat is {1000 * age:.0f} ms before the answer arrived, and users alone took {1000 * checked:.0f} ms",
            expected="iat is the time at which the request arrived, before users is asked",
            show="sed -n '/^def create/,/^@tokens.delete/p' work/08-tokens/tokens.py",
        )

    def seconds_of_users(self, answer):
        """Return how long users took to check the password of a sign-in, by the log of the monolith."""
        line = re.compile(rf"{re.escape(answer.headers['X-Request-ID'])} .* GET /api/users/me 200 (?P<ms>[0-9.]+) ms")
        logs = self.stage.run_folder / "logs"

        def find():
            return next(filter(None, (line.search(file.read_text()) for file in logs.glob("monolith_*.log"))), None)

        found = wait_until(find, ANSWERED_WITHIN)
        if not found:
            raise CannotCheck("the monolith's log does not say how long it took to check a password.")
        return float(found["ms"]) / 1000

    def the_public_key_is_enough_to_check(self, person):
        token = self.token_of(person)
        instance = self.told("tokens")
        done = subprocess.run(
            [sys.executable, "-c", CHECK_ALONE, token],
            cwd=instance.folder,
            env=instance.environment | {"PYTHONPATH": instance.folder},
            capture_output=True,
            text=True,
            timeout=CHECK_ALONE_TIMEOUT,
        )
        lines = done.stdout.splitlines()
        if not lines:
            raise CannotCheck(f"the tokens service does not start by hand: {done.stderr.strip():.300}")
        self.expect(
            lines[-1] == "OK",
            "check_token does not work in a service that has the public key alone. A service that has the private key "
            "can also sign.",
            seen=f"without JWT_PRIVATE_KEY: {lines[-1]}",
            expected="the claims of a good token, checked with JWT_PUBLIC_KEY",
            show="sed -n '/^def check_token/,/^def revocation_of_one/p' work/08-tokens/tokens.py",
        )

    def what_somebody_else_made_is_refused(self, person):
        now = int(time.time())
        good = {"user_id": person.id, "iat": now, "exp": now + HOUR, "jti": "of the check"}
        endless, nameless, timeless = (
            {name: good[name] for name in good if name != missing} for missing in ("exp", "jti", "iat")
        )
        sign, hmac = (
            partial(jwt.encode, key=self.private_key, algorithm="EdDSA"),
            partial(jwt.encode, good, self.public_key),
        )
        anybody = "anybody can make one."
        forged = [
            ("whose HMAC secret is the public key", hmac("HS256"), "what checks could sign."),
            ("that is signed with another key", sign(good, key=Ed25519PrivateKey.generate()), anybody),
            ("that has expired", sign(good | {"exp": now - 1}), "its hour is over."),
            ("without exp", sign(endless), "it would live for ever."),
            ("without jti", sign(nameless), "it alone could not be revoked."),
            ("without iat", sign(timeless), "signing out everywhere could not end it."),
            ("that names another algorithm", hmac("HS512"), "its maker chooses the check."),
            ("that names no algorithm", jwt.encode(good, None, "none"), anybody),
            ("that is none", "x.y.z", anybody),
        ]
        for what, token, why in forged:
            method, path = ASKS["tokens"]
            status = self.send(method, path, headers=bearer(token)).status_code
            self.expect(
                status == 401,
                f"A token {what} is {'accepted' if status < 500 else 'not refused, but an error'}: {why}",
                seen=f"{status} from {method} {path}, which needs a good token",
                expected="401",
            )

    def signing_out_ends_this_token(self, person):
        this, other = self.token_of(person), self.token_of(person)
        self.sign_out(this)
        self.expect(
            self.refuses("tokens", this),
            "The token that signed out still works.",
            seen="accepted by DELETE /api/tokens",
            expected="401, at once",
        )
        self.expect(
            wait_until(lambda: self.refuses("monolith", this), EVERYWHERE_WITHIN),
            "Tokens refuses the token that signed out, and the monolith takes it: it stands nowhere where others look.",
            seen=f"accepted by the monolith {EVERYWHERE_WITHIN} s later",
            expected="a row in the table revocations, which everybody fetches every second",
            hop=Hop.DATABASE,
            show=self.the_list,
        )
        self.expect(
            self.takes("tokens", other) and self.takes("monolith", other),
            "Who signs out on one page is signed out on another.",
            seen="401 for another token of the same user",
            expected="accepted: only ?all=1 is for all tokens",
            hop=Hop.DATABASE,
            show=self.the_list,
        )

    def signing_out_everywhere_ends_all_until_now(self, person, somebody_else):
        older, this, later, newer = self.sign_out_everywhere_within_a_second(person)
        for who, hop, within in (("tokens", Hop.SERVICE, 0), ("monolith", Hop.DATABASE, EVERYWHERE_WITHIN)):
            for token, which in (
                (this, "that asked for it"),
                (older, "from just before, in the same second,"),
                (later, "that is younger than the one that asked for it"),
            ):
                self.expect(
                    wait_until(lambda who=who, token=token: self.refuses(who, token), within),
                    f"Signed out everywhere, and the token {which} still works.",
                    seen=f"accepted by {who}",
                    expected="401: all of the user's tokens that were issued until now",
                    hop=hop,
                    show=self.the_list,
                )
            self.expect(
                self.takes(who, newer),
                "Who signs out everywhere and in again in the same second is signed out again.",
                seen=f"401 from {who}, and iat is {read(newer)['iat']}",
                expected="accepted: times are compared with their fraction of a second",
                hop=hop,
                show=self.the_list,
            )
            self.expect(
                self.takes(who, somebody_else.token),
                "One user signs out everywhere, and another one is signed out.",
                seen=f"401 from {who} for somebody else's token",
                expected="accepted",
                hop=hop,
                show=self.the_list,
            )

    def a_revocation_is_kept_for_as_long_as_the_tokens_live(self, person):
        """Sign out with tokens from half an hour ago; beside them there are some that were issued a moment ago."""
        now = time.time()
        half_over = {"user_id": person.id, "iat": now - HOUR / 2, "exp": int(now) + HOUR // 2}
        for query, lives in (("", HOUR // 2), ("?all=1", HOUR)):
            claims = half_over | {"jti": f"of the check {now} {query}"}
            self.sign_out(jwt.encode(claims, self.private_key, "EdDSA"), query)
            kept = self.kept_until(claims) - int(now)
            self.expect(
                kept >= lives,
                f"After DELETE /api/tokens{query} the revocation is forgotten too early: a token works again then.",
                seen=f"a row with expires_at {kept} s from now",
                expected=f"{lives} s from now: so long lives the youngest token that it is for",
                hop=Hop.DATABASE,
                show="./workshop logs tokens",
            )

    def expect(self, condition, sentence, *, seen, expected, hop=Hop.SERVICE, show="./workshop logs tokens"):
        if not condition:
            log = FRAMES_OF_LIBRARIES.sub("", self.stage.log("tokens", 100))
            raise Wrong(sentence, hop=hop, seen=seen, expected=expected, show=show, log=log)

    def ask(self, method, path, **options):
        """Return the answer; one that is not tokens' own, or an exception behind it, ends the check."""
        answer = self.send(method, path, **options)
        self.expect(
            answer.status_code < 500,
            f"{method} {path} fails in the service: what has happened stands in its log.",
            seen=f"{answer.status_code} {answer.text.strip():.60}",
            expected="an answer, or a refusal with a reason",
        )
        return answer

    def send(self, method, path, **options):
        return self.http.request(method, self.stage.url + path, timeout=ANSWERED_WITHIN, **options)

    def sign_in(self, person, password):
        return self.ask("POST", "/api/tokens", auth=(person.nickname, password))

    def token_of(self, person):
        answer = self.sign_in(person, person.password)
        token = answer.json().get("token") if answer.ok else None
        self.expect(
            isinstance(token, str) and token.count(".") == 2,
            "The right password gives no token.",
            seen=f"POST /api/tokens: {answer.status_code} {answer.text.strip():.60}",
            expected='200 {"token": "eyJ…"}',
        )
        return token

    def sign_out(self, token, query=""):
        answer = self.ask("DELETE", f"/api/tokens{query}", headers=bearer(token))
        self.expect(
            answer.status_code == 204,
            "Signing out with a good token is refused.",
            seen=f"DELETE /api/tokens{query}: {answer.status_code}",
            expected="204",
        )

    def takes(self, service, token):
        """Return whether every instance of a service accepts a token."""
        return self.opinions(service, token) == {"accepted"}

    def refuses(self, service, token):
        """Return whether every instance of a service refuses a token."""
        return self.opinions(service, token) == {"refused"}

    def opinions(self, service, token):
        """Return what the instances of a service say of a token; each is asked twice, since they take turns."""
        statuses = [self.ask(*ASKS[service], headers=bearer(token)).status_code for _ in range(2 * self.sizes[service])]
        return {"refused" if status == 401 else "accepted" for status in statuses}

    def sign_out_everywhere_within_a_second(self, person):
        """Return four tokens that were issued in one second; the second one signs out after the third was issued."""
        for _ in range(5):
            wait_until(lambda: time.time() % 1 < 0.1, 2)
            second = int(time.time())
            older, this, later = (self.token_of(person) for _ in range(3))
            self.sign_out(this, "?all=1")
            newer = self.token_of(person)
            if int(time.time()) == second:
                break
        return older, this, later, newer

    def kept_until(self, claims):
        """Return the latest expires_at of the rows that are about a token, or 0."""
        engine = create_engine(self.environment("tokens")["DATABASE_URL"])
        query = text("SELECT max(expires_at) FROM revocations WHERE jti = :jti OR user_id = :user_id")
        try:
            with engine.connect() as connection:
                return connection.execute(query, claims).scalar() or 0
        finally:
            engine.dispose()

    def environment(self, service):
        """Return what an instance of a service was told by its environment."""
        return self.told(service).environment

    def told(self, service):
        """Return what the sidecar of an instance of a service was told."""
        instance = self.stage.instances(service)[0]["id"]
        return Instance.load(self.stage.run_folder / "instances" / f"{instance}.json")


class FromElsewhere(HTTPAdapter):
    """Sends requests from the address ELSEWHERE."""

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(ELSEWHERE, 0), **options)


def read(token):
    """Return the claims of a token, unchecked: anybody can read them."""
    return jwt.decode(token, options={"verify_signature": False})


def is_number(*values):
    return all(isinstance(value, int | float) for value in values)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}
