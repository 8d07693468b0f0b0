import pytest

from common.config import MissingSetting


@pytest.mark.parametrize("name", ["SERVICE", "INTERNAL_URL", "DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"])
def test_a_missing_setting_is_named_at_start_up(create_app, environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)


def test_a_short_key_is_refused(create_app, environ):
    environ["JWT_SECRET_KEY"] = "too short"  # noqa: S105
    with pytest.raises(MissingSetting, match="shorter than 32"):
        create_app(environ)
