"""What the checks of all exercises have in common."""

import importlib

import pytest
import requests

from workshop import paths
from workshop.verdict import CannotCheck


@pytest.fixture
def system(monkeypatch):
    monkeypatch.syspath_prepend(paths.REPOSITORY / "exercises")
    return importlib.import_module("system")


def test_a_stage_that_answers_503_to_a_new_user_can_not_be_checked(system, monkeypatch):
    def sign_up(*_):
        raise requests.HTTPError("503 Server Error")

    monkeypatch.setattr(system, "sign_up", sign_up)

    with pytest.raises(CannotCheck, match=r"can't register.*503 Server Error.*in rotation"):
        system.Person("http://127.0.0.1:8080", "ann")
