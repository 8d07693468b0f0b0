"""Who served what: counted from the answers, and looked up in the logs.

.venv/bin/python who.py URL                 how many of 30 requests each instance has answered
.venv/bin/python who.py LOGS REQUEST_ID     which programs had to do with a request
"""

import re
import sys
from collections import Counter
from pathlib import Path

import requests

TIMEOUT = 10  # seconds: longer than the system lets any request take


def shares(url: str, number: int) -> Counter:
    """Return how many of `number` requests each instance has answered: name → answers."""
    counted = Counter()
    with session() as http:
        for _ in range(number):
            answer = http.get(f"{url}/api/messages?limit=1", timeout=TIMEOUT)
            counted[answer.headers["X-Served-By"]] += 1
    return counted


def trail(request_id: str, logs: Path) -> list[str]:
    """Return the programs whose logs name a request: those files NAME.log of the folder, sorted by name."""
    named = re.compile(rf"\b{re.escape(request_id)}\b")
    return sorted(log.stem for log in logs.glob("*.log") if named.search(log.read_text(errors="replace")))


def session() -> requests.Session:
    """Return a session without a proxy between us and loopback."""
    made = requests.Session()
    made.trust_env = False
    return made


def main() -> None:
    match sys.argv[1:]:
        case [url]:
            for instance, answers in sorted(shares(url, 30).items()):
                print(f"{instance}  {answers}")
        case [logs, request_id]:
            print("\n".join(trail(request_id, Path(logs))))
        case _:
            sys.exit("usage: who.py URL | who.py LOGS REQUEST_ID")


if __name__ == "__main__":
    main()
