"""The schema: extended by this stage, and what it does not need any more left to a later build."""

import sqlite3
import time
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select

from common.database import db
from common.tests.helpers import finish
from parley.models.sign_out import SignOut, deliver_sign_outs


def test_the_migrations_make_what_the_models_say_and_leave_the_table_of_revocations(app):
    with app.app_context(), db.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), db.metadata)
    left = {(kind, getattr(thing, "table", thing).name) for kind, thing in differences}
    assert left == {("remove_table", "revocations"), ("remove_index", "revocations")}


@pytest.fixture
def database_url(tmp_path, flask_db):
    """The URL of a database as stage 0 leaves it, with Ann, a message of hers and a token that she has revoked."""
    path = tmp_path / "of_stage_0.db"
    url = f"sqlite:///{path}"
    flask_db("upgrade 0001", url)
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO users VALUES (7, 1, 1, 1, 'ann', 'hash', 0)")
        now = int(time.time())
        database.execute("INSERT INTO messages VALUES (9, ?, ?, 'hi', '<p>hi</p>', 7, NULL)", (now, now))
        database.execute("INSERT INTO revocations VALUES (3, 'jti', NULL, NULL, 5)")
        database.commit()
    flask_db("upgrade", url)
    return url


def test_a_database_of_stage_0_is_extended_and_keeps_every_row(client, app, database_url):
    assert client.get("/api/users/7").json["nickname"] == "ann"
    assert [message["id"] for message in client.get("/api/messages").json["messages"]] == [9]
    with app.app_context(), db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT jti FROM revocations").scalars().all() == ["jti"]


@pytest.mark.parametrize("revision", ["0002", "0003"])
def test_a_database_of_stage_0_and_one_of_an_earlier_stage_1_get_what_they_lack(tmp_path, flask_db, revision):
    path = tmp_path / "earlier.db"
    flask_db(f"upgrade {revision}", f"sqlite:///{path}")
    flask_db("upgrade", f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]
        assert database.execute("SELECT nickname_key FROM users").fetchall() == []
        assert database.execute("SELECT id FROM sign_outs").fetchall() == []


def test_in_a_database_of_stage_0_who_changes_a_password_waits_in_the_outbox_until_tokens_is_told(
    app, client, auth, others, monkeypatch
):
    monkeypatch.setattr("parley.api.users.hash_password", lambda password: f"hash of {password}")
    client.get("/api/users", headers=auth.headers(7))  # the list of revocations is known from here on
    others.away = {"tokens"}
    changed = client.put("/api/users/7", json={"password": "battery staple"}, headers=auth.headers(7))
    assert changed.status_code == 204
    finish(deliver_sign_outs)

    def waiting():
        return [row.user_id for row in db.session.scalars(select(SignOut))]

    others.away, others.calls = set(), []
    with app.app_context():
        assert waiting() == [7]
        deliver_sign_outs()
        assert waiting() == []
    [told] = others.called("POST", "/internal/tokens/revocations")
    assert told["json"]["user_id"] == 7
