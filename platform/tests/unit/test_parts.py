"""`./workshop test`: what it says of several runs."""

import signal
import subprocess
import sys

from workshop.commands.test import leaving_interrupts_to, worst

PASSED, FAILED, NONE, KILLED = 0, 1, 5, -9
# Says that it runs, then waits to be interrupted, as pytest does, and ends in good order.
RUN = """
import time
try:
    print("runs", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("in good order")
"""


def test_the_worst_exit_status_counts():
    assert worst([PASSED, PASSED], is_choice=False) == PASSED
    assert worst([PASSED, FAILED], is_choice=False) == FAILED
    assert worst([PASSED, KILLED], is_choice=False) == 9


def test_a_run_without_tests_is_an_error_unless_somebody_has_chosen():
    assert worst([PASSED, NONE], is_choice=False) == NONE
    assert worst([PASSED, NONE], is_choice=True) == PASSED
    assert worst([NONE, NONE], is_choice=True) == NONE


def test_a_signal_ends_the_runs_in_good_order():
    started = [subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        with leaving_interrupts_to(started):
            assert [process.stdout.readline() for process in started] == ["runs\n"] * 2
            signal.raise_signal(signal.SIGTERM)
            assert [process.communicate(timeout=10)[0] for process in started] == ["in good order\n"] * 2
    finally:
        for process in started:
            process.kill()
            process.communicate()
