"""Fixtures: those of the monolith, and the code put together as its build would be: the bridge lies in its package."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from common.tests.helpers import ISSUES
from workshop import builds, stage

BRIDGE = Path(__file__).parents[1]
BUILD = tempfile.TemporaryDirectory(prefix="bridge-")
for inside, source in builds.contents(stage.read("bridge", BRIDGE).services["monolith"]).items():
    Path(BUILD.name, inside).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, Path(BUILD.name, inside))
sys.path.append(BUILD.name)

from monolith.tests.conftest import ann, auth, make_app, pytest_plugins  # noqa: E402, F401


@pytest.fixture(scope="session")
def code():
    """The folder of the build."""
    yield Path(BUILD.name)
    BUILD.cleanup()


@pytest.fixture
def environ(environ, database_url, redis_url):
    """As the monolith's, and with the private key: this build signs tokens, as stage 0's does."""
    return {**environ, **ISSUES, "DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
def create_app():
    from parley.bridge import create_app

    return create_app
