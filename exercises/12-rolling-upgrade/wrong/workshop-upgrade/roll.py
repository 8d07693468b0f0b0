"""A rolling upgrade: every instance is replaced by one of another version, and nobody notices.

The fleet (exercises/12-rolling-upgrade/fleet.py) does the single steps:

    fleet.wanted                        how many instances there are to be
    fleet.instances()                   all there are; each has .id, .version and .state ("UP": it is in rotation)
    fleet.start(version)                starts one more, and returns its id at once
    fleet.wait_until_served(instance)   waits until it is in rotation; WorkshopError if it never will be
    fleet.stop(instance)                out of rotation, drained, ended, forgotten
"""

import subprocess

from workshop.errors import WorkshopError


def roll(fleet, version):
    """Have exactly as many instances as wanted, all of this version.

    Never fewer in rotation than before, never more than one in addition. One that does not come to serve is removed
    again, and ends the roll with its WorkshopError: those not replaced yet go on serving. It goes by what it finds: a
    roll that was interrupted is finished.
    """
    done = subprocess.run(["./workshop", "upgrade", fleet.service, "--to", version], capture_output=True, text=True)
    if done.returncode:
        raise WorkshopError(done.stderr)
