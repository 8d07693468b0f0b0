"""A command at a terminal, as a learner sees it, for tests that press keys."""

import codecs
import os
import pty
import select
import subprocess
import termios

from workshop.waiting import wait_until

TIMEOUT = {"process": 40, "docker": 120}  # seconds for what a command does after a key: such as to build an image


class Terminal:
    """A command that is typed at a terminal, with somebody who presses keys."""

    def __init__(self, workshop, *arguments: str):
        self.master, slave = pty.openpty()
        environment = os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder)}
        command = [workshop.repository / "workshop", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.timeout = TIMEOUT[workshop.driver]
        self.seen = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a read may end within a character

    def read_until(self, wanted: str) -> bool:
        """Read on until a text is there; False when the command has ended before."""
        start = len(self.seen)
        while wanted not in self.seen[start:]:
            try:
                assert select.select([self.master], [], [], self.timeout)[0], f"nothing comes any more: {self.seen}"
                self.seen += self.decoder.decode(os.read(self.master, 65536))
            except OSError:  # how a terminal says that nobody is there any more
                return False
        return True

    def press(self, key: str) -> None:
        """Press a key as soon as the command listens to keys; what is typed before, it does not get."""
        assert wait_until(lambda: not termios.tcgetattr(self.master)[3] & termios.ICANON, self.timeout)
        os.write(self.master, key.encode())

    def end(self) -> int:
        status = self.process.wait(self.timeout)
        os.close(self.master)
        return status
