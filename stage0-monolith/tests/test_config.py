import pytest

from parley import create_app
from parley.config import MissingSetting


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY"])
def test_a_missing_setting_is_named_at_start_up(environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)


@pytest.mark.parametrize("name", ["JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY"])
@pytest.mark.parametrize("value", ["too short", "é" * 43, "x" * 86])
def test_what_is_no_key_is_refused(environ, name, value):
    environ[name] = value
    with pytest.raises(MissingSetting, match=f"{name} is not a key of 32 bytes"):
        create_app(environ)
