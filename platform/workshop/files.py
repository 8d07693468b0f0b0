"""Writing files so that nobody ever reads half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workshop.errors import WorkshopError


def write_atomically(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by one that holds `content`: written beside it, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


def refuse_unwritable(file: Path) -> None:
    """Raise WorkshopError when no file can be written where the user wants it."""
    try:
        folder = file.resolve().parent
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and (file.is_file() or not file.exists()):
            return
    except OSError:
        pass  # such as a name that is too long
    raise WorkshopError(f"{file} cannot be written: name a file in a folder that exists and is yours.")


def write_where_asked(file: Path, content: str | bytes) -> None:
    """Write a file that the user has named, for everybody to read. Raises WorkshopError when that can't be done."""
    refuse_unwritable(file)
    try:
        write_atomically(file.resolve(), content, mode=0o644)
    except OSError as error:
        raise WorkshopError(f"{file} cannot be written, {error.strerror}: name another one.") from None


def give(folder: Path, user: int) -> None:
    """Have a folder and all in it belong to a user, as only root can: to whom its containers run as, and back."""
    if os.getuid() == 0 and folder.exists():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """Yield an empty file beside `path`, to be written to: in the end renamed over it, after an exception removed.

    Where we are root and the folder is not ours, the file becomes its owner's: a container's, who is to read it.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    if (owner := path.parent.stat()).st_uid != os.getuid() == 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
