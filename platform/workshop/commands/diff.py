import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from workshop import lesson, stage
from workshop.files import write_where_asked

WIDEST = 100  # columns of a paragraph
COLOURS = {"+": "green", "-": "red", "@": "cyan"}  # of a diff's lines, by what they begin with


@click.command("diff", epilog="Example: ./workshop diff stage0 stage1 tokens")
@click.argument("earlier", metavar="FROM")
@click.argument("later", metavar="TO")
@click.argument("topic", metavar=f"[{'|'.join(lesson.TOPICS)}]", required=False)
@click.option("--all", "everything", is_flag=True, help="Show tests, READMEs and what tools have made, too.")
@click.option("--html", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write a page, side by side.")
def command(earlier: str, later: str, topic: str | None, everything: bool, file: Path | None) -> None:
    """Show the lesson between two stages: which files moved, which changed, and why, topic by topic.

    New files are only named, unless a topic is asked for.
    """
    chapters = lesson.chapters(earlier, later, topic, everything)
    if file:
        from workshop import lesson_page  # here, since the libraries that it needs take a while to import

        write_where_asked(file, lesson_page.render(earlier, later, chapters))
        click.echo(f"{file} is written: open it in a browser.")
        return
    folders = stage.folder(earlier).name, stage.folder(later).name
    click.echo_via_pager(
        f"{line}\n" for chapter in chapters for line in lines(chapter, *folders, in_full=topic is not None)
    )


def lines(chapter: lesson.Chapter, earlier: str, later: str, in_full: bool) -> Iterator[str]:
    """Yield what a terminal shows of a topic: why, what has become of its files, and their diffs."""
    yield click.style(f"{chapter.topic}: {earlier} → {later}", bold=True, underline=True)
    width = min(WIDEST, shutil.get_terminal_size().columns)
    for step, why in chapter.why.items():
        for text in (f"{step}: {why}", f"What it costs: {chapter.cost[step]}"):
            yield "\n" + click.wrap_text(text, width)
    for heading, files in chapter.summary().items():
        yield "\n" + click.style(heading, bold=True)
        yield from (f"  {file}" for file in files)
    for change in chapter.of_kind("changed") + (chapter.of_kind("new") if in_full else []):
        diff = list(change.unified(earlier, later))
        yield from ("", *(click.style(line, bold=True) for line in diff[:2]))  # the names
        yield from (click.style(line, COLOURS.get(line[0])) for line in diff[2:])
    yield "\n"
