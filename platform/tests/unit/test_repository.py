"""The repository as such: style, shell scripts, locked dependencies."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from tests import devcontainer

from workshop import builds, cli, paths, stage

REPOSITORY = paths.REPOSITORY
SHELL_SCRIPTS = ["workshop", "platform/provision.sh", ".ci/run", *map(str, REPOSITORY.glob("platform/**/*.sh"))]


def test_ruff_has_nothing_to_say():
    for arguments in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        result = subprocess.run([paths.BIN / "ruff", *arguments, "."], cwd=REPOSITORY, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck_has_nothing_to_say():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: platform/provision.sh --test installs it")
    result = subprocess.run(["shellcheck", *SHELL_SCRIPTS], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_warning_fails_each_test_so_that_a_deprecation_is_found_before_it_breaks():
    files = [REPOSITORY / "platform/pytest.ini", *REPOSITORY.glob("stage*/**/pytest.ini")]
    folders = {file.parent.parent for file in REPOSITORY.glob("stage*/**/tests/test_*.py")}
    assert {file.parent for file in files} == {REPOSITORY / "platform", *folders}
    for file in files:
        filters = configparser.ConfigParser()
        filters.read(file, encoding="utf-8")
        named = filters["pytest"]["filterwarnings"].split("\n")
        assert named == ["error"], f"{file}: name an exception here, with its reason"


def test_the_dev_container_and_the_image_begin_with_the_same_instructions():
    files = (devcontainer.FOLDER / "Dockerfile", REPOSITORY / "platform" / "docker" / "workshop.Dockerfile")
    begun, whole = (re.sub(r"(?m)^#.*\n", "", file.read_text(encoding="utf-8")) for file in files)
    assert whole.startswith(begun)


def test_every_requirement_of_a_stage_is_pinned_as_in_the_lock_file():
    locked = set(re.findall(r"(?m)^([a-z0-9-]+==[^ ]+)", (REPOSITORY / "requirements.lock").read_text()))
    files = sorted(REPOSITORY.glob("stage*/**/requirements.txt"))
    assert files
    for file in files:
        for line in file.read_text().split():
            assert line in locked, f"{file}: {line}"


# Where services share code: the stages with several, and the build that leads to the first of them.
STAGES = [stage.load("stage1"), stage.load("stage2"), stage.read("bridge", stage.stages()["stage1"] / "bridge")]
each_service = pytest.mark.parametrize(
    "service",
    [pytest.param(service, id=f"{one.name}-{service.name}") for one in STAGES for service in one.services.values()],
)

# What comes with a distribution that is named, and what is needed without being imported.
COMES_WITH = {
    "alembic": "flask-migrate",
    "kombu": "celery",
    "markupsafe": "flask",
    "python-engineio": "flask-socketio",
    "python-socketio": "flask-socketio",
    "sqlalchemy": "flask-sqlalchemy",
    "werkzeug": "flask",
    "wsproto": "simple-websocket",
}
NEEDED_BY = {
    "flask": {"gevent", "gunicorn", "packaging"},  # its server, and what that needs to run with gevent
    "flask-socketio": {"simple-websocket"},
    "flask-sqlalchemy": {"psycopg", "psycopg-binary"},  # the databases may be PostgreSQL
    "markdown-it-py": {"linkify-it-py"},
}


def imported_names(file):
    """Return the names that a file imports; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from (f"{'.' * node.level}{base}{alias.name}" for alias in node.names)


def imported_packages(service):
    """Return the top-level packages that a service imports, itself or in the modules of common that it uses."""
    common = service.shared["common"]
    built = builds.contents(service).values()
    files = [file for file in built if file.suffix == ".py" and file.parent != common] + [common / "server.py"]
    packages = set()
    for file in files:  # grows while we read
        for name in imported_names(file):
            package, module = f"{name}.".split(".")[:2]
            packages |= {package} - {""}
            is_shared = package == "common" or (package == "" and file.parent == common)
            if is_shared and (path := common / f"{module}.py").exists() and path not in files:
                files.append(path)
    return packages - sys.stdlib_module_names


@each_service
def test_a_service_imports_nothing_of_another_one_and_names_what_it_imports(service):
    distributions = packages_distributions()
    packages = imported_packages(service) - {"parley", "common"}
    assert packages <= set(distributions)
    imported = {distributions[package][0].lower().replace("_", "-") for package in packages}
    named = {line.split("==")[0] for line in (service.folder / "requirements.txt").read_text().split()}
    expected = {name for name in imported if COMES_WITH.get(name) not in imported}
    assert named == expected.union(*(NEEDED_BY.get(name, ()) for name in imported))


@pytest.mark.parametrize("several", STAGES, ids=lambda several: several.name)
def test_a_service_uses_no_database_of_another_one(several):
    used = [store for service in several.services.values() for store in service.stores.values() if store != "queue"]
    assert len(used) == len(set(used))
    assert {several.stores[store].kind for store in used} == {"sql"}


def test_every_package_in_the_lock_files_has_a_hash_and_no_address():
    lock = (REPOSITORY / "requirements.lock").read_text()
    packages = re.split(r"(?m)^(?=[a-z])", lock)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in lock
    assert '"resolved"' not in (REPOSITORY / "package-lock.json").read_text()


def test_every_command_has_help_with_an_example():
    for name in cli.COMMANDS:
        command = cli.cli.get_command(None, name)
        assert command.name == name
        assert command.help
        assert command.epilog.startswith(f"Example: ./workshop {name}")


def test_python_etcd_stays_inside_one_module():
    files = list(Path(paths.REPOSITORY / "platform" / "workshop").rglob("*.py"))
    assert [path.name for path in files if re.search(r"(?m)^(import|from) etcd\b", path.read_text())] == ["v2.py"]
