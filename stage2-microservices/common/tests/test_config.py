import pytest

from common.config import MissingSetting


@pytest.mark.parametrize("name", ["SERVICE", "INTERNAL_URL", "DATABASE_URL", "REDIS_URL", "JWT_PUBLIC_KEY"])
def test_a_missing_setting_is_named_at_start_up(create_app, environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)


@pytest.mark.parametrize("value", ["too short", "é" * 43, "x" * 86])
def test_what_is_no_key_is_refused(create_app, environ, value):
    environ["JWT_PUBLIC_KEY"] = value
    with pytest.raises(MissingSetting, match="JWT_PUBLIC_KEY is not a key of 32 bytes"):
        create_app(environ)
