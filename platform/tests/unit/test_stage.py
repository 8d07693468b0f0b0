"""stage.toml, right and wrong."""

import re

import pytest

from workshop import stage
from workshop.errors import WorkshopError

GOOD = """\
title = "A test"

[stores]
db.kind = "sql"

[services.web]
routes = ["/"]
command = ["serve", "$PORT"]
stores = { DATABASE_URL = "db" }

[workers.clock]
service = "web"
command = ["tick"]
"""


def read(tmp_path, text: str) -> stage.Stage:
    (tmp_path / "stage.toml").write_text(text)
    return stage.read("test", tmp_path)


def test_a_good_file_is_read(tmp_path):
    made = read(tmp_path, GOOD)

    assert made.services["web"].routes == ["/"]
    assert made.workers["clock"].service == "web"
    assert made.program("clock").instances == 1


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "what"),
    [
        ('title = "A test"', "title = 5", 1, "title", "a text in quotes is needed"),
        ('title = "A test"', 'title = "A test"\nwins = 5', 2, "wins", "a text in quotes is needed"),
        ('title = "A test"', 'title = "A test"\nloses = ""', 2, "loses", "a text in quotes is needed"),
        ('title = "A test"', 'title = "A test"\ndraws = "It does."', 2, "draws", "allowed is title, wins, loses"),
        ('db.kind = "sql"', 'db.kind = "oracle"', 4, "stores.db.kind", "allowed is sql, redis"),
        ("[services.web]", "[services.Web]", 6, "services.Web", "lower-case letters"),
        ('routes = ["/"]', 'routes = "/"', 7, "services.web.routes", "a list of texts is needed"),
        ('routes = ["/"]', 'routes = ["/a b"]', 7, "services.web.routes", "is no path prefix"),
        ('routes = ["/"]', 'routes = ["/"]\ninstances = 0', 8, "services.web.instances", "from 1 to 20"),
        ('routes = ["/"]', 'routes = ["/"]\noptional = "no"', 8, "services.web.optional", "allowed is true, false"),
        ('routes = ["/"]', 'routes = ["/"]\nbalance = "fair"', 8, "services.web.balance", "roundrobin"),
        (
            'routes = ["/"]',
            'routes = ["/"]\nshared = { common = "none" }',
            8,
            "services.web.shared",
            "there is no folder",
        ),
        ('DATABASE_URL = "db"', 'DATABASE_URL = "x"', 9, "services.web.stores.DATABASE_URL", "allowed is db"),
        ('service = "web"', 'service = "shop"', 12, "workers.clock.service", "allowed is web"),
        ("[workers.clock]", "[workers.web]", 11, "workers.web", "has this name already"),
        ('command = ["serve", "$PORT"]\n', "", 6, "services.web.command", "a list of texts is needed"),
    ],
)
def test_a_wrong_value_is_named_with_line_key_and_what_is_allowed(tmp_path, old, new, line, key, what):
    assert old in GOOD
    with pytest.raises(WorkshopError) as error:
        read(tmp_path, GOOD.replace(old, new, 1))

    message = error.value.format_message()
    assert message.startswith(f"{tmp_path}/stage.toml, line {line}, key {key}: ")
    assert what in message


def test_broken_toml_is_named_with_its_line(tmp_path):
    with pytest.raises(WorkshopError) as error:
        read(tmp_path, GOOD.replace('["/"]', '["/"'))

    assert "line 8" in error.value.format_message()


def test_an_optional_service_is_there_with_its_workers_only_when_it_is_chosen(tmp_path):
    optional = GOOD.replace(
        "[services.web]", '[services.api]\nroutes = ["/api"]\ncommand = ["serve"]\n\n[services.web]'
    )
    made = read(tmp_path, optional.replace('routes = ["/"]', 'routes = ["/"]\noptional = true'))

    assert list(made.only(["web"]).services) == ["api", "web"]
    assert list(made.only([]).services) == ["api"]
    assert made.only([]).workers == {}


def test_what_is_asked_for_must_be_an_optional_service():
    assert "stats" in stage.load_with("stage0", ["stats"]).services
    assert "stats" not in stage.load_with("stage0", []).services
    for wrong in ("monolith", "worker", "statistics", ""):
        with pytest.raises(WorkshopError, match=f"no optional service '{wrong}': there is stats"):
            stage.load_with("stage0", ["stats", wrong])


def test_what_a_stage_wins_and_loses_may_be_left_unsaid(tmp_path):
    said = 'title = "A test"\nwins = "It is short."\nloses = """\nIt is \\\nfast."""'
    for text, wins, loses in ((GOOD, "", ""), (GOOD.replace('title = "A test"', said), "It is short.", "It is fast.")):
        made = read(tmp_path, text)
        assert (made.wins, made.loses) == (wins, loses)


def test_every_stage_of_the_repository_is_well_formed():
    for name in stage.stages():
        assert stage.load(name).services


@pytest.mark.parametrize("name", stage.stages())
def test_every_stage_says_in_a_sentence_each_what_it_wins_and_loses_and_leaves_figures_to_the_bench(name):
    made = stage.load(name)
    for sentence in (made.wins, made.loses):
        assert re.fullmatch(r"[A-Z][^.0-9\n]*[.]", sentence)
