import pytest

from parley import create_app
from parley.config import MissingSetting


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"])
def test_a_missing_setting_is_named_at_start_up(environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)


def test_a_short_key_is_refused(environ):
    environ["JWT_SECRET_KEY"] = "too short"  # noqa: S105
    with pytest.raises(MissingSetting, match="shorter than 32"):
        create_app(environ)
