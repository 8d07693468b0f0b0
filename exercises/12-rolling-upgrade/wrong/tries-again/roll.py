"""A rolling upgrade: every instance is replaced by one of another version, and nobody notices.

The fleet (exercises/12-rolling-upgrade/fleet.py) does the single steps:

    fleet.wanted                        how many instances there are to be
    fleet.instances()                   all there are; each has .id, .version and .state ("UP": it is in rotation)
    fleet.start(version)                starts one more, and returns its id at once
    fleet.wait_until_served(instance)   waits until it is in rotation; WorkshopError if it never will be
    fleet.stop(instance)                out of rotation, drained, ended, forgotten
"""

from workshop.errors import WorkshopError


def roll(fleet, version):
    """Have exactly as many instances as wanted, all of this version.

    Never fewer in rotation than before, never more than one in addition. One that does not come to serve is removed
    again, and ends the roll with its WorkshopError: those not replaced yet go on serving. It goes by what it finds: a
    roll that was interrupted is finished.
    """
    done, old = split(fleet, version)
    while old or len(done) < fleet.wanted:
        if len(done) < fleet.wanted:
            try:
                done.append(start(fleet, version))
            except WorkshopError:  # it may have been bad luck: once more
                done.append(start(fleet, version))
            print(f"{done[-1]} serves", flush=True)
        if old:
            fleet.stop(old.pop(0))


def split(fleet, version):
    """Return which instances are as they are to be, and which have to go, the dead first."""
    ours = fleet.instances()
    done = [i.id for i in ours if i.version == version and i.state == "UP"]
    old = sorted((i for i in ours if i.id not in done), key=lambda instance: instance.state == "UP")
    return done, [instance.id for instance in old]


def start(fleet, version):
    """Start an instance and wait until it serves; return its id. What does not come up is removed again."""
    instance = fleet.start(version)
    try:
        fleet.wait_until_served(instance)
    except BaseException:  # the interrupt key too
        fleet.stop(instance)
        raise
    return instance
