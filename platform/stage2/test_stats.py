"""The service in another language, beside the five: what it counts it asks of two of them."""

from contract.conftest import Client
from tests.workshops import make_workshop


def test_stats_counts_messages_and_people_of_two_services(pytestconfig, until):
    workshop = make_workshop()
    workshop.stage, workshop.db = pytestconfig.getoption("stage"), pytestconfig.getoption("db")
    try:
        workshop.up("--with", "stats")
        ann = Client(workshop.url).register()
        ann.say("hello")
        ann.put("/api/users/me")

        def counted() -> bool:
            answer = ann.get("/api/stats")
            assert answer.headers["X-Served-By"].startswith("stats_")
            return answer.json() == {"messages_per_minute": 1, "people_online": 1}

        until(counted, 3, "one message and one person")
        ann.http.close()
    finally:
        workshop.destroy()
