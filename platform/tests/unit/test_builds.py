"""Builds: numbered, immutable, new only when something has changed."""

import dataclasses

import pytest

from workshop import builds, paths
from workshop.errors import WorkshopError
from workshop.stage import Service


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILDS", tmp_path / "builds")
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "app.py").write_text("answer = 1\n")
    return Service("tiny", folder, ["run"], ["/"])


def test_an_edit_changes_nothing_in_a_build_and_makes_a_new_one(service):
    assert builds.build(service) == "v1"
    (service.folder / "app.py").write_text("answer = 2\n")

    assert (builds.folder("tiny", "v1") / "app.py").read_text() == "answer = 1\n"
    assert builds.build(service) == "v2"
    assert builds.build(service) == "v2"  # nothing has changed since


def test_what_is_not_needed_to_run_is_no_part_of_a_build(service):
    for left_out in ("tests", "__pycache__", ".cache"):
        (service.folder / left_out).mkdir()
        (service.folder / left_out / "file.py").write_text("x = 1\n")
    (service.folder / "README.md").write_text("read me\n")
    folder = builds.folder("tiny", builds.build(service))

    assert [path.name for path in folder.rglob("*") if path.suffix in (".py", ".md")] == ["app.py"]


def test_a_shared_folder_stands_in_the_build_beside_the_services_own_files_and_its_edit_makes_a_new_one(
    service, tmp_path
):
    common = tmp_path / "common"
    common.mkdir()
    (common / "health.py").write_text("answer = 1\n")
    service = dataclasses.replace(service, shared={"common": common})

    assert builds.build(service) == "v1"
    assert (builds.folder("tiny", "v1") / "common" / "health.py").exists()
    (common / "health.py").write_text("answer = 2\n")
    assert builds.build(service) == "v2"


def test_code_that_does_not_compile_is_no_build(service, capfd):
    (service.folder / "app.py").write_text("answer = = 1\n")
    with pytest.raises(WorkshopError, match="does not compile"):
        builds.build(service)

    assert builds.versions("tiny") == []
    assert "app.py" in capfd.readouterr().out


def test_a_front_end_file_that_was_not_installed_is_named(service, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "NPM", tmp_path / "nothing")
    with pytest.raises(WorkshopError, match=r"client\.js is missing: run `\./workshop setup`"):
        builds.build(Service("tiny", service.folder, ["run"], ["/"], npm={"client.js": "client/client.js"}))
