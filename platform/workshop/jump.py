"""Brings everything to where an exercise begins, whatever was there; what was there is put aside, never removed.

the repository      git stash: what was changed in it, new files too
work/NN-slug/       work/backups/
what is up          down, then up with the stage that the exercise needs
.run/data/          .run/backups/

With `--keep-files`, the first two stay as they are.
"""

import os
import shutil
import subprocess
import time

from workshop import binaries, exercises, paths, processes, state
from workshop.errors import WorkshopError
from workshop.exercises import Exercise, shown
from workshop.lifecycle import Progress

DATA_BACKUPS = paths.RUN / "backups"  # until `down --wipe`
# What git keeps there while something is unfinished, that a stash would lose.
UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
# A stash is a commit, and has an author.
IDENTITY = ("-c", "user.name=learner", "-c", "user.email=learner@localhost")


def to(exercise: Exercise, keep_files: bool, say: Progress) -> None:
    """Bring everything to where the exercise begins; with `keep_files`, only the stage and its databases.

    Raises WorkshopError. The command can then be repeated.
    """
    exercises.refuse_without_folders(exercise)
    if not keep_files:
        _put_files_aside(exercise, say)
    elif exercise.is_started:
        say(f"Your files stay as they are, in {shown(exercise.work)}.")
    chosen = _options()
    _workshop("down")
    if paths.DATA.exists() and any(paths.DATA.iterdir()):
        backup = exercises.unused(DATA_BACKUPS / time.strftime("data-%Y%m%d-%H%M%S"))
        backup.parent.mkdir(exist_ok=True)
        os.rename(paths.DATA, backup)
        say(f"The databases so far are in {backup}.")
        say(f"  to have them back: ./workshop down; mv {paths.DATA} /tmp; mv {backup} {paths.DATA}")
    _workshop("up", exercise.needs, *chosen)
    if exercise.counts:
        _workshop("scale", *(f"{name}={count}" for name, count in exercise.counts.items()))
    if not exercise.is_started:
        exercises.start(exercise)


def _put_files_aside(exercise: Exercise, say: Progress) -> None:
    _stash(exercise, say)
    if backup := exercises.back_up(exercise):
        say(f"Your files of {exercise.name} are in {shown(backup)}.")
        say(f"  to have them back: mv {shown(exercise.work)} /tmp; mv {shown(backup)} {shown(exercise.work)}")


def _options() -> list[str]:
    """Return the options with which what is up was brought up: the learner's port, database and registry stay."""
    try:
        up = state.load()
    except WorkshopError:
        return []
    return ["--port", str(up.ports["public"]), "--db", up.db, "--registry", up.registry_api]


def what_is_missing(exercise: Exercise) -> str | None:
    """Say what has to be up for the exercise, if it is not."""
    try:
        up = state.load()
    except WorkshopError:
        return f"Then bring up what it needs: ./workshop up {exercise.needs}"
    if there := exercise.what_is_up_instead(up):
        return (
            f"It needs {exercise.needs}, and {there} is up. This brings up {exercise.needs} and keeps your files: "
            f"./workshop exercise jump {exercise.number} --keep-files"
        )
    return None


def _stash(exercise: Exercise, say: Progress) -> None:
    """Put aside what was changed in the repository, if it is one of git's."""
    if not shutil.which("git") or not (paths.REPOSITORY / ".git").exists():
        say("This folder is no git repository of its own: what was changed in it stays changed.")
        return
    if not _git("status", "--porcelain"):
        return
    if problem := binaries.problem("git", binaries.version("git")):
        raise WorkshopError(f"{problem}. Update git, or commit what you changed. Then run this again.")
    for name in UNFINISHED:
        if (paths.REPOSITORY / _git("rev-parse", "--git-path", name).strip()).exists():
            raise WorkshopError("A merge, or a rebase, is not finished: `git status` says how to end it.")
    _git("stash", "push", "--include-untracked", "--message", f"before jump {exercise.number}")
    say("What you had changed in the repository is in a stash: `git stash pop --index` brings it back.")


def _git(*words: str) -> str:
    command = ["git", "-C", paths.REPOSITORY, *IDENTITY, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WorkshopError(f"git {words[0]} has failed, nothing was changed: {done.stderr.strip()}")
    return done.stdout


def _workshop(*words: str) -> None:
    """Run a command of the workshop, which prints what it does. Raises WorkshopError when it fails.

    It has a session of its own, so that it gets no signal but ours: when we are interrupted, `up` and `scale` are told
    to tidy up, and `down`, which does nothing else, goes on to its end.
    """
    with subprocess.Popen([*paths.LAUNCHER, *words], start_new_session=True) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            if words[0] != "down":
                process.terminate()
            with processes.not_interrupted():
                process.wait()
            raise
    if process.returncode:
        raise WorkshopError(f"`./workshop {' '.join(words)}` has failed, see above: `./workshop doctor` may say why.")
