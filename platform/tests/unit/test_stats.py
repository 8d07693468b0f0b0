"""The service in another language has tests in that language: this runs them."""

import subprocess

from workshop import paths, processes

FOLDER = paths.REPOSITORY / "stage2-microservices" / "stats"


def test_node_finds_nothing_wrong_with_stats():
    environment = processes.base_environment()
    command = ["node", "--throw-deprecation", "--test", "--test-reporter", "spec"]
    result = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fail 0" in result.stdout
    assert "pass 0" not in result.stdout
