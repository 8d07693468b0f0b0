"""What can go wrong in a way that the person at the keyboard can mend."""

import click


class WorkshopError(click.ClickException):
    """One sentence that says what is wrong and what to do; click prints it on stderr and exits with 1."""
