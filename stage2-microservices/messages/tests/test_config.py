import pytest

from common.config import MissingSetting
from parley import create_app


@pytest.mark.parametrize("name", ["SERVICE", "INTERNAL_URL", "DATABASE_URL", "REDIS_URL", "JWT_PUBLIC_KEY"])
def test_a_missing_setting_is_named_at_start_up(environ, name):
    del environ[name]
    with pytest.raises(MissingSetting, match=name):
        create_app(environ)
