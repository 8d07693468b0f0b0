"""A database per service: nobody reaches into another one's."""

import itertools

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import OperationalError

OWNERS = ("tokens", "users", "messages")


def test_a_service_has_its_own_tables_and_no_others(stage):
    tables = {}
    for service in OWNERS:
        with stage.database(service) as database:
            tables[service] = set(inspect(database).get_table_names()) - {"alembic_version"}
    assert tables == {
        "tokens": {"revocations"},
        "users": {"users", "sign_outs"},
        "messages": {"messages", "idempotency_keys"},
    }


@pytest.mark.parametrize(("service", "other"), list(itertools.permutations(OWNERS, 2)))
def test_the_role_of_a_service_can_not_read_another_ones_tables(stage, service, other):
    if stage.db != "postgres":
        pytest.skip("SQLite knows no roles: run it with --db postgres")
    own, others = (make_url(stage.environment(name)["DATABASE_URL"]) for name in (service, other))
    assert own.username != others.username
    engine = create_engine(own.set(database=others.database))
    with pytest.raises(OperationalError, match="permission denied for database"):
        engine.connect().execute(text("SELECT 1"))
    engine.dispose()
