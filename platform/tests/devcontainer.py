"""What the configuration of the dev container says, in JSON with comments."""

import json
import re

from workshop import paths

FOLDER = paths.REPOSITORY / ".devcontainer"
FILE = FOLDER / "devcontainer.json"


def config() -> dict:
    return json.loads(re.sub(r"(?m)^\s*//.*", "", FILE.read_text(encoding="utf-8")))
