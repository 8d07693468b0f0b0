import pytest

from common.config import MissingSetting
from parley import create_app


@pytest.mark.parametrize("name", ["SERVICE", "INTERNAL_URL", "DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"])
def test_a_missing_setting_is_named_at_start_up(environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)


@pytest.mark.parametrize(
    ("value", "parts"),
    [(None, {"users", "messages"}), ("users", {"users"}), ("messages users", {"users", "messages"}), ("", set())],
)
def test_the_parts_that_are_still_here_are_a_setting(make_app, environ, value, parts):
    if value is not None:
        environ["PARTS"] = value
    assert make_app(environ).config["PARTS"] == parts


def test_parts_that_there_are_not_are_named(environ):
    with pytest.raises(MissingSetting, match="PARTS names token, user: there are users and messages"):
        create_app({**environ, "PARTS": "user messages token"})
