"""The stages side by side: what one has taken over from another is the same byte for byte, or it is said why not."""

import dataclasses
import difflib

import pytest

from workshop import builds, stage

STAGE0, STAGE1, STAGE2 = (stage.load(name) for name in ("stage0", "stage1", "stage2"))
BRIDGE = stage.read("bridge", stage.stages()["stage1"] / "bridge")
MONOLITH = STAGE1.services["monolith"]

# The modules of stage 1's monolith that a service of stage 2 has, too: which service, and what it calls them there.
MOVE_AS_THEY_ARE = {
    "attempts.py": ("users", "attempts.py"),
    "nicknames.py": ("users", "nicknames.py"),
    "passwords.py": ("users", "passwords.py"),
    "presence.py": ("users", "presence.py"),
    "api/__init__.py": ("users", "api/__init__.py"),
    "api/users.py": ("users", "api/users.py"),
    "api/internal_users.py": ("users", "api/internal.py"),
    "models/__init__.py": ("users", "models/__init__.py"),
    "models/user.py": ("users", "models/user.py"),
    "models/sign_out.py": ("users", "models/sign_out.py"),
    "config.py": ("messages", "config.py"),
    "links.py": ("messages", "links.py"),
    "markup.py": ("messages", "markup.py"),
    "api/messages.py": ("messages", "api/messages.py"),
    "api/internal_messages.py": ("messages", "api/internal.py"),
    "socket_server.py": ("socketio", "socket_server.py"),
}
# And those that change on their way to stage 2, or end here: why.
CHANGE = {
    "__init__.py": "wires what is together in one process",
    "models/message.py": "a foreign key to users, who are in the same database",
    "events.py": "calls functions of this process",
    "tasks.py": "Celery",
    "worker.py": "Celery",
}


def modules(service):
    """Return the modules of a service's own package: name → file."""
    folder = service.folder / "parley"
    return {str(file.relative_to(folder)): file for file in folder.rglob("*.py")}


@pytest.mark.parametrize("name", ["ui", "tokens"])
def test_a_service_that_has_left_the_monolith_in_stage_1_is_that_of_stage_2(name):
    first, later = STAGE1.services[name], STAGE2.services[name]
    one, other = ({inside: file.read_bytes() for inside, file in builds.contents(s).items()} for s in (first, later))
    differing = [inside for inside in one.keys() | other.keys() if one.get(inside) != other.get(inside)]
    assert differing == []
    assert builds.digest(first) == builds.digest(later)
    assert dataclasses.replace(first, folder=later.folder, shared=later.shared) == later


@pytest.mark.parametrize("module", MOVE_AS_THEY_ARE)
def test_what_will_move_from_the_monolith_is_already_as_in_stage_2(module):
    service, name = MOVE_AS_THEY_ARE[module]
    assert modules(MONOLITH)[module].read_bytes() == modules(STAGE2.services[service])[name].read_bytes()


def test_of_every_other_module_of_the_monolith_it_is_said_why_it_differs():
    assert modules(MONOLITH).keys() == MOVE_AS_THEY_ARE.keys() | CHANGE.keys()
    assert not MOVE_AS_THEY_ARE.keys() & CHANGE.keys()


def test_messages_differ_by_one_foreign_key():
    one, other = (
        modules(service)["models/message.py"].read_text().splitlines()
        for service in (MONOLITH, STAGE2.services["messages"])
    )
    changed = [line for line in difflib.ndiff(one, other) if line[0] in "-+"]
    assert [line.partition("#")[0].strip() for line in changed] == [
        '-     user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))',
        "+     user_id: Mapped[int]",
    ]


def test_of_ui_and_tokens_nothing_is_left_in_the_monolith():
    before, after = (builds.contents(one.services["monolith"]) for one in (STAGE0, STAGE1))
    gone = {name for name in before if name.startswith("parley/ui/")}
    gone |= {"parley/api/tokens.py", "parley/models/revocation.py"}
    assert gone < before.keys()
    assert not gone & after.keys()
    for name, module in modules(MONOLITH).items():
        for word in ("Revocation", "issue_token", "render_template"):
            assert word not in module.read_text(), name


def test_the_schema_of_stage_0_is_extended_and_its_migrations_are_kept():
    before, after = (builds.contents(one.services["monolith"]) for one in (STAGE0, STAGE1))
    versions = [name for name in before if name.startswith("migrations/versions/")]
    assert versions
    assert all(before[name].read_bytes() == after[name].read_bytes() for name in versions)


def test_the_bridge_is_a_build_of_the_monolith_for_the_place_that_stage_0_has():
    old, new = STAGE0.services["monolith"], BRIDGE.services["monolith"]
    for name in ("routes", "sticky", "stores", "secrets", "settings", "npm"):
        assert getattr(new, name) == getattr(old, name)
    assert BRIDGE.workers == STAGE0.workers == STAGE1.workers
    contents = builds.contents(new)
    assert builds.contents(MONOLITH).items() <= contents.items()
    assert {name for name in builds.contents(old) if "/ui/" in name} <= contents.keys()
