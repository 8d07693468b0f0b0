"""What the bench counts."""

from workshop import bench, stage


def stage_of(name: str, **instances: int) -> stage.Stage:
    services = {
        service: stage.Service(service, folder=None, command=[], routes=[], instances=count)
        for service, count in instances.items()
    }
    return stage.Stage(name, name, {}, services, {})


def test_the_first_service_of_a_stage_gets_the_instances_that_the_stage_lacks():
    stages = [stage_of("one", all=1), stage_of("few", rest=1, part=1), stage_of("many", a=2, b=1, c=2)]

    assert bench.equal_shares(stages) == [{"all": 5}, {"rest": 4, "part": 1}, {"a": 2, "b": 1, "c": 2}]


def test_blank_lines_comments_and_docstrings_are_no_lines(tmp_path):
    file = tmp_path / "program.py"
    file.write_text('''"""What
it does."""

# why
LIST = [
    1,  # one
]


def run():
    """Run."""
    return """
    a text
    """
''')

    assert bench.code_lines(file) == 7
