"""Which of etcd's APIs the registry uses."""

import pytest

from workshop import binaries, stores
from workshop.errors import WorkshopError


@pytest.mark.parametrize(
    ("version", "wanted", "chosen"),
    [
        ("3.4.23", None, "v2"),
        ("3.5.16", None, "v2"),
        ("3.6.0", None, "v3"),
        ("4.0.1", None, "v3"),
        ("3.4.23", "v3", "v3"),
        ("3.5.16", "v2", "v2"),
        ("3.6.0", "v3", "v3"),
    ],
)
def test_the_etcd_that_is_installed_decides_unless_an_api_is_wanted(monkeypatch, version, wanted, chosen):
    monkeypatch.setattr(binaries, "version", lambda name: version)

    assert stores.registry_api(wanted) == chosen


def test_an_etcd_that_has_no_v2_api_is_not_started_with_it(monkeypatch):
    monkeypatch.setattr(binaries, "version", lambda name: "3.6.1")

    with pytest.raises(WorkshopError, match=r"^etcd 3\.6\.1 no longer has the v2 API\. Use `--registry v3`, or omit"):
        stores.registry_api("v2")


def test_an_etcd_with_the_v3_api_is_given_no_option_that_3_6_does_not_know(tmp_path):
    command = " ".join(stores.etcd_command(tmp_path, "v3", 1, 2))

    assert "enable-v2" not in command
    assert "enable-v2=true" in " ".join(stores.etcd_command(tmp_path, "v2", 1, 2))
