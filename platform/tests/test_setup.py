"""What is broken is noticed and repaired: each test breaks a repository, or a running stage, on purpose and in one way.

The repository is a copy whose lock file names only what `./workshop setup` and `./workshop status` import. So a new
environment takes seconds: what each broken state has in common is that `setup` makes one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.workshops import NOT_COPIED, REPOSITORY

from workshop import doctor, installers, ports, supervisor

NEEDED = {
    "certifi", "cffi", "charset-normalizer", "click", "cryptography", "dnspython", "idna", "jinja2", "markdown-it-py",
    "markupsafe", "mdurl", "psutil", "pycparser", "pygments", "python-etcd", "requests", "rich", "setuptools",
    "supervisor", "urllib3",
}  # fmt: skip
SPARE = "vine"  # no other package needs it
SETUP_TIMEOUT = 120  # seconds; measured: 10, and 60 on a machine that does much else
READY = "Everything is installed."


def run(repository: Path, *arguments: str, launcher: tuple[str, ...] = (), **environment: str):
    """Run a command of the workshop in a repository; return its exit status, and what it printed."""
    result = subprocess.run(
        [*launcher, repository / "workshop", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SETUP_TIMEOUT,
        env=os.environ | {"WORKSHOP_RUN_DIR": ""} | environment,
    )
    assert "Traceback" not in result.stdout, result.stdout
    return result.returncode, result.stdout


def works(repository: Path) -> bool:
    """Tell whether the command line runs from the repository's own packages, and is up to them."""
    location = subprocess.run(
        [repository / ".venv/bin/supervisord", "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    status, output = run(repository, "status")
    return location.returncode == 0 and status == 1 and output.startswith("Error: No stage is up")


@pytest.fixture(scope="module")
def wheels():
    """The packages of the short lock file, so that no set-up of these tests needs the network."""
    with tempfile.TemporaryDirectory(prefix="wheels-") as folder:
        lock = Path(folder, "requirements.lock")
        lock.write_text(short_lock(), encoding="utf-8")
        pip = [sys.executable, "-I", installers.__file__, "pip", "download", "--quiet", "--dest", folder]
        options = ["--use-pep517", "--no-build-isolation", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, *options, "--requirement", lock], check=True)
        yield folder


def short_lock() -> str:
    packages = re.split(r"(?m)^(?=[a-z])", (REPOSITORY / "requirements.lock").read_text())
    return "".join(package for package in packages if package.split("==")[0] in {*NEEDED, SPARE})


def copy_of_the_files(folder: Path) -> Path:
    """Copy the repository without what is installed in it, but for the front-end files, which are linked."""
    repository = folder / "repository"
    shutil.copytree(REPOSITORY, repository, ignore=NOT_COPIED)
    (repository / "requirements.lock").write_text(short_lock())
    (repository / "node_modules").symlink_to(REPOSITORY / "node_modules")
    return repository


@pytest.fixture(scope="module")
def folder():
    # Not pytest's own temporary folders: their paths are too long for sockets.
    with tempfile.TemporaryDirectory(prefix="setup-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def offline(wheels):
    """Make pip take packages from `wheels`: set-up keeps the settings that name a package index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", wheels)
        yield


@pytest.fixture(scope="module")
def repository(folder, offline):
    """A repository that is set up. Each test that breaks it has set-up repair it."""
    made = copy_of_the_files(folder)
    status, output = run(made, "setup")
    assert (status, READY in output) == (0, True), output
    return made


@pytest.fixture
def environment(repository):
    assert works(repository)
    return repository / ".venv"


def test_a_repository_that_is_set_up_is_left_alone(repository, environment):
    stamp = (environment / "ready").stat()
    assert run(repository, "setup") == (0, f"{READY} Next: ./workshop up stage0\n")
    assert (environment / "ready").stat() == stamp


def test_a_repository_that_was_copied_and_moved_gets_packages_of_its_own(repository, environment, folder):
    copied = folder / "copied"
    shutil.copytree(repository, copied, symlinks=True)
    status, output = run(copied, "doctor")
    assert (status, output) == (1, f"made in another folder: .venv/ ({environment})\nRun: ./workshop setup\n")

    moved = copied.rename(folder / "moved")
    status, output = run(moved, "setup")
    assert (status, READY in output) == (0, True), output
    assert f"made in another folder: .venv/ ({environment})\nInstalling" in output
    assert works(moved)
    assert str(environment) not in (moved / ".venv/bin/supervisord").read_text()
    assert works(repository)  # the one that was copied is as it was
    shutil.rmtree(moved)


def test_a_link_to_another_repository_s_packages_is_replaced_and_they_stay(repository, environment, folder):
    linked = copy_of_the_files(folder / "linked")
    (linked / ".venv").symlink_to(environment)
    (linked / "requirements.lock").write_text(short_lock() + "# another one\n")

    assert run(linked, "setup")[0] == 0
    assert not (linked / ".venv").is_symlink()
    assert works(linked)
    assert works(repository)
    shutil.rmtree(folder / "linked")


def test_set_up_that_was_interrupted_in_its_first_seconds_begins_anew_also_when_two_commands_begin_it(
    repository, environment, until
):
    shutil.rmtree(environment)
    begun = subprocess.Popen(
        [repository / "workshop", "setup"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until((environment / "bin" / "python").exists, 20, "the environment has begun")
    os.killpg(begun.pid, signal.SIGINT)
    begun.wait(20)
    assert not (environment / "bin" / "pip").exists()

    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([repository / "workshop", command], **options) for command in ("setup", "status")]
    outputs = [process.communicate(timeout=SETUP_TIMEOUT)[0] for process in both]
    assert [process.returncode for process in both] == [0, 1], outputs
    assert READY in outputs[0]
    assert "Error: No stage is up" in outputs[1]  # each command sets up what is missing
    assert sum("Another set-up is at work" in output for output in outputs) == 1
    assert sum("Installing" in output for output in outputs) == 1
    assert works(repository)


def test_another_minor_version_of_python_gets_packages_of_its_own(repository, environment):
    """As after an upgrade of the distribution: /usr/bin/python3 is another one than that of the packages."""
    this = os.path.realpath("/usr/bin/python3")
    (environment / "lib" / Path(this).name).rename(environment / "lib" / "python3.9")
    stamp = environment / "ready"
    stamp.write_text(stamp.read_text().replace(this, "/usr/bin/python3.9"))

    status, output = run(repository, "doctor")
    assert (status, output) == (
        1,
        "made for another Python: .venv/ (/usr/bin/python3.9)\nRun: ./workshop setup\n",
    )
    assert run(repository, "setup")[0] == 0
    assert works(repository)


def test_packages_that_are_damaged_are_named_and_installed_anew(repository, environment):
    package = next(environment.glob("lib/python3*/site-packages/psutil"))
    shutil.rmtree(package)
    status, output = run(repository, "status")
    assert status == 1
    assert output.startswith("Error: A Python package in .venv/ is missing or damaged (No module named 'psutil'). Run")

    status, output = run(repository, "setup")
    assert status == 0, output
    assert re.match(r"damaged: \.venv/ \(psutil has lost the file psutil/.+\)\nInstalling the Python packages", output)
    assert works(repository)


def test_another_lock_file_is_installed_anew_whatever_the_settings_of_pip_and_python(repository, environment, tmp_path):
    lock = repository / "requirements.lock"
    lock.write_text(re.sub(rf"(?ms)^{SPARE}==.*?(?=^[a-z]|\Z)", "", lock.read_text()))
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nuser = true\n[install]\nprefix = {tmp_path}/prefix\nno-binary = :all:\n")
    (tmp_path / "click.py").write_text("raise SystemExit('the caller has a module of this name')")
    settings = {
        "PIP_CONFIG_FILE": str(configuration),
        "PIP_TARGET": f"{tmp_path}/target",
        "PIP_ROOT": f"{tmp_path}/root",
        "PIP_DRY_RUN": "1",
        "PIP_QUIET": "3",
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": str(tmp_path),
    }
    status, output = run(repository, "setup", **settings)
    assert (status, READY in output) == (0, True), output
    assert "made from another requirements.lock: .venv/\n" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["click.py", "pip.conf"]
    assert not list(environment.glob(f"lib/python3*/site-packages/{SPARE}"))  # of the lock file before
    assert works(repository)


def test_settings_of_npm_do_not_change_what_is_installed(tmp_path):
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "home").mkdir()
    certificates = [line for line in Path.home().glob(".npmrc") for line in line.read_text().splitlines()]
    settings = [*certificates, "dry-run = true", "omit[] = prod", f"prefix = {tmp_path}/elsewhere"]
    (tmp_path / "home" / ".npmrc").write_text("\n".join(settings))
    environment = {"HOME": str(tmp_path / "home"), "npm_config_dry_run": "true", "NPM_CONFIG_GLOBAL": "true"}
    environment |= {"NODE_OPTIONS": "--require=/nowhere", "npm_config_cache": str(Path.home() / ".npm")}
    subprocess.run(
        [sys.executable, "-I", installers.__file__, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=tmp_path,
        env=os.environ | environment,
        check=True,
    )
    assert (tmp_path / "node_modules" / "socket.io-client" / "package.json").exists()


def test_a_repository_without_executable_files_is_set_up_through_bash_and_they_are_executable_again(
    repository, environment
):
    for script in (repository / "workshop", *repository.glob("platform/**/*.sh")):
        script.chmod(0o644)
    assert run(repository, "status", launcher=("bash",))[0] == 1  # no stage is up, and nothing else is wrong
    status, output = run(repository, "setup", launcher=("bash",))
    assert status == 0, output
    assert output.startswith("The file workshop was not executable. It is now.\n")
    assert works(repository)


def test_a_jump_to_an_exercise_needs_no_executable_files(copied_workshop):
    (copied_workshop.repository / "workshop").chmod(0o644)
    command = ["bash", copied_workshop.repository / "workshop", "exercise", "jump", "01"]
    environment = os.environ | {"WORKSHOP_RUN_DIR": str(copied_workshop.run_folder)}
    jump = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SETUP_TIMEOUT)
    assert jump.returncode == 0, jump.stderr
    (copied_workshop.repository / "workshop").chmod(0o755)
    assert copied_workshop.status()["stage"] == "stage0"


def test_a_path_is_judged_before_anything_is_downloaded(folder):
    blank, long, colon = folder / "with blank", folder / ("a" * 60), folder / "colon:colon"
    said = {
        blank: "contains blanks or unusual characters. Move the repository to a folder with a plain path.",
        long: "and sockets allow 67. Move the repository to a folder with a shorter path.",
        colon: "contains a colon or a line break. Move the repository.",
    }
    for place, sentence in said.items():
        repository = copy_of_the_files(place)
        status, output = run(repository, "setup")
        assert (status, output.count("\n")) == (1, 1), output
        assert sentence in output
        status, output = run(repository, "doctor")
        assert status == 1
        assert sentence in output
        assert not (repository / ".venv").exists()
        shutil.rmtree(place)


def test_set_up_and_up_demand_the_same_of_a_path():
    script = (REPOSITORY / "platform" / "provision.sh").read_text()
    longest = int(re.search(r"LONGEST_RUN_FOLDER=(\d+)", script)[1])
    assert longest == supervisor.LONGEST_SOCKET - len("/supervisor/supervisor.sock")
    assert f"=~ ^{supervisor.PLAIN_PATH.pattern}$ " in script


# The environment of the caller


BAD = {
    "PGSSLMODE": "verify-full",
    "PGSERVICE": "none",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGPORT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "GIT_DIR": "/nowhere",
    "PATH": "/nowhere",
}


def test_variables_of_the_caller_do_not_change_a_stage(workshop):
    """The locale is not UTF-8, libpq and Python are told otherwise, and the PATH leads nowhere."""
    environment = os.environ | BAD | latin_1(workshop.run_folder) | {"WORKSHOP_RUN_DIR": str(workshop.run_folder)}
    page = workshop.run_folder / "tour.html"

    def run_in_it(*arguments: str) -> str:
        command = ["/bin/bash", workshop.repository / "workshop", *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        result = subprocess.run(command, **output, timeout=SETUP_TIMEOUT, env=environment)
        assert result.returncode == 0, result.stdout
        assert "Traceback" not in result.stdout
        return result.stdout

    run_in_it("up", "stage0", "--db", "postgres", "--port", str(ports.free_port()))
    assert "│ monolith │" in run_in_it("status")
    assert "✓ stage0 is up" in run_in_it("doctor")
    run_in_it("tour", "--html", str(page))
    assert not page.read_text(encoding="utf-8").isascii()


def latin_1(folder: Path) -> dict[str, str]:
    """Return variables that choose a locale whose characters are ISO 8859-1, if this system can make one."""
    made = folder / "locales" / "de_DE"
    made.parent.mkdir()
    if subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", made], capture_output=True).returncode:
        return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    return {"LOCPATH": str(made.parent), "LC_ALL": "de_DE", "LANG": "de_DE"}


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("-n 1024", "a process may open 1024 files at most, 4096 are needed (`ulimit -Hn`)"),
        ("-f 1000", "a file may have 0 MiB at most, 100 are needed (`ulimit -f`)"),
    ],
)
def test_a_limit_that_is_too_low_for_a_stage_is_named_by_doctor_and_by_up(workshop, limit, sentence):
    def under_limit(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", "-c", f'ulimit {limit}; exec "$0" "$@"', workshop.repository / "workshop", *arguments]
        environment = os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder)}
        return subprocess.run(command, capture_output=True, text=True, timeout=SETUP_TIMEOUT, env=environment)

    examined = under_limit("doctor")
    assert examined.returncode in (doctor.MEND, doctor.ADMINISTRATOR)
    assert f"✗ {sentence}\n  → begin in a new terminal" in examined.stdout
    refused = under_limit("up", "stage0")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith(f"Error: {sentence}: begin in a new terminal")
    assert workshop.processes() == []


# A running stage


@pytest.fixture(scope="module")
def stage(workshop_of_module):
    workshop_of_module.up()
    return workshop_of_module


def findings(stage, expect: int) -> list[str]:
    """Return what doctor finds not well, each with its remedy."""
    return re.findall(r"(?m)^✗ (.+\n  → .+)$", stage.run("doctor", expect=expect).stdout)


@pytest.mark.parametrize("repairs", ["up", "scale"])
def test_logs_that_were_removed_are_named_and_written_again(stage, repairs):
    port = stage.url.rpartition(":")[2]
    command = {"up": ["up", "stage0", "--port", port], "scale": ["scale", "monolith=2"]}[repairs]
    logs = stage.run_folder / "logs"
    shutil.rmtree(logs)
    assert findings(stage, 1) == [f"{logs} was removed: no log is written\n  → run `./workshop up stage0`"]

    stage.run(*command)
    assert findings(stage, 0) == []
    stage.run("probe", "--for", "1s")
    assert "POST /api/messages" in stage.run("logs", "haproxy").stdout


def test_files_of_haproxy_that_were_removed_are_written_again(stage, until):
    files = [stage.run_folder / "haproxy" / name for name in ("haproxy.cfg", "routes.map", "holds.map", "hold.lua")]
    for file in files:
        file.unlink()
    until(lambda: all(file.exists() for file in files), 10, "the manager has written them")
    stage.run("join", "stage2-microservices/stats", "--name", "stats")  # HAProxy is reloaded
    stage.run("leave", "stats")
    assert findings(stage, 0) == []


def test_builds_that_were_removed_are_named_and_made_again(stage):
    shutil.rmtree(stage.run_folder / "builds")
    remedy = "run `./workshop restart monolith`, which builds it again"
    what = "build v1 of monolith was removed: its instances cannot start again"
    assert f"{what}\n  → {remedy}" in findings(stage, 1)
    refused = stage.run("scale", "monolith=5", expect=1).stderr
    assert refused == f"Error: Build v1 of monolith was removed. R{remedy[1:]}.\n"
    assert (
        "were removed. Run `./workshop restart monolith`"
        in stage.run("upgrade", "monolith", "--to", "v1", expect=1).stderr
    )

    stage.run("restart", "monolith")
    assert findings(stage, 0) == []
