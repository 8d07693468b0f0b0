"""What only root can do: tests that mount, give files away or become somebody else are skipped without it."""

import os
import subprocess

import pytest


def can_mount() -> bool:
    """Tell whether we are root and may mount: in a container, even root may not."""
    if os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0


as_root = pytest.mark.skipif(not can_mount(), reason="only root can do this, and in some containers not even root")
