"""What goes wrong before a command has begun."""

import runpy

import pytest


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_before_click_has_begun_is_one_word_and_no_traceback(monkeypatch):
    monkeypatch.setattr("workshop.cli.main", interrupt)
    with pytest.raises(SystemExit, match=r"^Aborted!$"):
        runpy.run_module("workshop", run_name="__main__")
