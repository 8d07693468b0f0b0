"""The command lines that texts show, `./workshop …`: found in Markdown, transcripts and code, and parsed."""

import ast
import contextlib
import functools
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from workshop import lesson, stage, tour
from workshop.cli import cli
from workshop.commands.test import PARTS

# A command line ends with its line, and at whatever is no word of it: a comment, the shell's next command, two blanks.
PROGRAM = re.compile(r"(?<![\w./])\./workshop(?![\w/])")
WORDS = re.compile(r"(?: (?!#)[^\s`\"';|&<>()]+)*")
FENCE = re.compile(r"^[ >]*```")
SPAN = re.compile(r"`[^`]+`")
PUNCTUATION = ",.:"  # behind a word: the sentence's, not the command's
ELLIPSIS = "…"
FROM_CODE = "{}"  # what a value of an f-string becomes
# What stands in a text for a value of the reader's, and one that it could be.
PLACEHOLDERS = {
    "NN": "01",
    "COMMAND": "status",
    "STAGE": "stage0",
    "SERVICE": "monolith",
    "NAME": "kill",
    "FILE": "file",
    "$decision": "promote",
}
OF_EXERCISES = {"words"}  # services that a learner adds to a stage
LOGS = {"haproxy", "balancer", "etcd", "redis", "postgres"}  # beside those of the services


@dataclass(frozen=True)
class CommandLine:
    file: Path
    line: int
    words: tuple[str, ...]  # what follows `./workshop`
    is_whole: bool  # and not the mere mention of a command, or one whose end is left out

    def __str__(self) -> str:
        return " ".join(("./workshop", *self.words))


def in_text(file: Path) -> list[CommandLine]:
    """Return the command lines of a text, in its order: in fenced blocks, in `inline code`, or in neither."""
    pieces = (
        _markdown(file.read_text(encoding="utf-8"))
        if file.suffix == ".md"
        else _lines(file.read_text(encoding="utf-8"))
    )
    return [command for line, piece in pieces for command in commands_of(piece, file, line)]


def in_code(file: Path) -> list[CommandLine]:
    """Return the command lines of a program's strings."""
    pieces = sorted(_strings(ast.parse(file.read_text(encoding="utf-8"))))
    return [command for line, string in pieces for command in commands_of(string, file, line)]


def commands_of(text: str, file: Path, line: int) -> Iterator[CommandLine]:
    """Yield the command lines of a text without line ends."""
    for found in PROGRAM.finditer(text):
        shown = WORDS.match(text, found.end())[0].split()
        words = []
        for word in shown:
            if word != ELLIPSIS:
                words.append(word.rstrip(PUNCTUATION))
            if word[-1] in PUNCTUATION + ELLIPSIS and not re.search(r"_v\d+_…$", word):
                break
        is_quoted = text[: found.start()].endswith("`")
        is_mention = is_quoted and not any(map(_is_value, words))
        yield CommandLine(file, line, tuple(words), bool(words) and not is_mention and ELLIPSIS not in shown)


def _is_value(word: str) -> bool:
    """Tell whether it is none of the words that name a command, such as `exercise check`."""
    return not re.fullmatch(r"[a-z]+", word) or word not in _names()


@functools.cache
def _names() -> set[str]:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return set(commands) | {name for one in commands.values() if isinstance(one, click.Group) for name in one.commands}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line; one that ends with a backslash with those that continue it."""
    number, whole = 1, ""
    for count, line in enumerate(text.splitlines(), 1):
        whole += line.removesuffix("\\") if not whole else line.removesuffix("\\").lstrip()
        if not line.endswith("\\"):
            yield number, whole
            number, whole = count + 1, ""


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of fenced blocks, each span of inline code as one line, and what is left of the text."""
    inside, prose = False, []
    for number, line in _lines(text):
        prose += [""] * (number - len(prose) - 1)
        is_fence = bool(FENCE.match(line))
        inside ^= is_fence
        prose.append("" if inside or is_fence else line)
        if inside:
            yield number, line
    rest = "\n".join(prose)
    for span in SPAN.finditer(rest):
        yield rest.count("\n", 0, span.start()) + 1, re.sub(r"\s*\n[\s>]*", " ", span[0])
    yield from _lines(SPAN.sub(lambda span: "\n" * span[0].count("\n"), rest))


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings below a node of the syntax tree, each with its line; parts that follow each other are one."""
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else FROM_CODE for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def problem(command: CommandLine) -> str | None:
    """Say what the real command line has against a command, which is not run; None if it would take it."""
    words = [PLACEHOLDERS.get(word, word) for word in command.words]
    try:
        if command.is_whole and not any(FROM_CODE in word for word in words):
            _parse(words)
        else:
            _find_names(words)
    except click.ClickException as error:
        return error.format_message()
    return None


def _resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, and what follows. Raises click.UsageError: there is none."""
    command, context = cli, click.Context(cli, info_name="./workshop")
    while isinstance(command, click.Group) and words and not words[0].startswith(("-", FROM_CODE)):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    return command, words


def _parse(words: list[str]) -> None:
    command, rest = _resolve(words)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            context = command.make_context(words[0], list(rest))
    except click.exceptions.Exit:
        return  # --help
    for parameter in command.params:
        kind, given = parameter.metavar or parameter.name, context.params[parameter.name]
        values = given if isinstance(given, tuple) else (given,)
        if given and kind in CHECKS and not CHECKS[kind](values):
            raise click.UsageError(f"there is no such {kind}: {' '.join(values)}")


def _find_names(words: list[str]) -> None:
    """Look for the command and its options, without their values. Raises click.UsageError."""
    command, rest = _resolve(words)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--"}
    for word in rest:
        if word.startswith("-") and word not in known and not command.context_settings.get("ignore_unknown_options"):
            raise click.NoSuchOption(word)


@functools.cache
def _services() -> set[str]:
    stages = [stage.read(name, folder) for name, folder in stage.stages().items()]
    return {name for one in stages for name in one.services | one.workers} | OF_EXERCISES


def _are_stages(names: tuple[str, ...]) -> bool:
    return set(names) <= set(stage.stages())


def _are_services(names: tuple[str, ...]) -> bool:
    """Tell whether each is a service of any stage, or an instance of one."""
    return {re.sub(r"_v\d+_.+", "", name) for name in names} <= _services()


def _are_counts(words: tuple[str, ...]) -> bool:
    return all(re.search(r"=\d+$", word) for word in words) and _are_services([word.split("=")[0] for word in words])


# What is looked at only when a command runs, by what its help calls it.
CHECKS = {
    "STAGE": _are_stages,
    "[STAGE]": _are_stages,
    "[STAGE...]": _are_stages,
    "FROM": _are_stages,
    "TO": _are_stages,
    f"[{'|'.join(lesson.TOPICS)}]": lambda names: set(names) <= set(lesson.TOPICS),
    "SERVICE": _are_services,
    "service": _are_services,
    "[SERVICE]": lambda names: set(names) <= LOGS or _are_services(names),
    "INSTANCE|SERVICE": _are_services,
    "SERVICE=N...": _are_counts,
    "[STATION]": lambda numbers: bool(tour.find(*numbers)),
    "[WHAT] [-- OPTIONS...]": lambda words: words[0] in PARTS or words[0].startswith("-"),
}
