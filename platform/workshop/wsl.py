"""The Windows Subsystem for Linux (WSL 2): what differs there from a machine with Linux alone."""

from pathlib import Path

KERNEL = Path("/proc/version")  # names Microsoft, which builds the kernel
HARDWARE_CLOCK = Path("/sys/class/rtc/rtc0/since_epoch")  # in WSL 2, the clock of Windows, in UTC
CLONE = "clone the repository into your home folder in WSL, such as ~/workshop, not below /mnt/c"
RESTART = "run `wsl --shutdown` in Windows, then open WSL again, which sets the clock"


def is_wsl() -> bool:
    return "microsoft" in KERNEL.read_text(encoding="utf-8").lower()


def seconds_behind(now: float) -> int:
    """Return how many seconds the clock is behind that of Windows, as after the machine has slept; 0 if unknown."""
    if not is_wsl() or not HARDWARE_CLOCK.exists():  # elsewhere, the hardware clock may show local time
        return 0
    return max(0, int(HARDWARE_CLOCK.read_text(encoding="utf-8")) - int(now))
