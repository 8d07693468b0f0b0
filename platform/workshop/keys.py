"""Waiting for a key, between two steps that somebody explains to others."""

import sys

import click


def wait_for_key(prompt: str) -> None:
    """Wait until any key is pressed; Ctrl-C interrupts, for click.pause it would be a key like any other."""
    click.echo(prompt, nl=False)
    click.getchar()
    click.echo()


def refuse_without_keyboard(instead: str) -> None:
    """Raise UsageError when there is no terminal to press keys at; `instead` is the option that does without."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"There is nobody to press keys: add {instead}.")
