"""What a canary is given, and how its requests are counted."""

import pytest

from workshop.counters import Counters
from workshop.errors import WorkshopError
from workshop.rollout import weight_for

LINE = "127.0.0.1 public {} {} {} {} ms GET /api/messages request_id=x --\n"


@pytest.mark.parametrize(
    ("percent", "others", "weight"), [(10, 300, 33), (50, 100, 100), (1, 100, 1), (1, 10, 1), (46, 300, 256)]
)
def test_a_canary_gets_its_share_as_near_as_whole_numbers_allow(percent, others, weight):
    assert weight_for(percent, others) == weight


def test_a_share_that_one_instance_cannot_get_is_refused_with_the_most_that_it_can():
    with pytest.raises(WorkshopError, match="at most 46 %"):
        weight_for(47, 300)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "haproxy.log"


def line(instance: str, status: int = 200, time: int = 5, service: str = "tiny") -> str:
    return LINE.format(service, instance, status, time)


def counted(counters: Counters) -> dict[str, tuple[int, int]]:
    counters.update()
    return {version: (counter.requests, counter.failed) for version, counter in counters.versions.items()}


def test_requests_are_counted_by_version_from_the_canarys_first_one_on(log):
    log.write_text(
        line("tiny_v1_aaaa", 500)
        + line("tiny_v2_bbbb")
        + line("tiny_v1_aaaa")
        + line("tiny_v2_bbbb", 503, -1)
        + line("other_v1_aaaa", service="other")
        + line("<NOSRV>", 503)
        + "Server tiny/tiny_v1_aaaa is DOWN, reason: Layer4 connection problem, info: refused.\n"
    )
    counters = Counters(log, "tiny", "v2")

    assert counted(counters) == {"v2": (2, 1), "v1": (1, 0)}
    assert counters.versions["v2"].times.total() == 1  # one was never answered


def test_no_line_is_missed_or_counted_twice_when_the_log_becomes_too_long(log):
    log.write_text(line("tiny_v2_bbbb") + line("tiny_v1_aaaa")[:20])
    counters = Counters(log, "tiny", "v2")
    assert counted(counters) == {"v2": (1, 0)}

    with log.open("a") as file:
        file.write(line("tiny_v1_aaaa")[20:])
    log.rename(f"{log}.1")
    assert counted(counters) == {"v2": (1, 0)}  # there is no new one in this moment
    log.write_text(line("tiny_v1_aaaa"))
    assert counted(counters) == {"v2": (1, 0), "v1": (2, 0)}
    assert counted(Counters(log, "tiny", "v2")) == {"v2": (1, 0), "v1": (2, 0)}  # one who begins to look now


def test_percentiles_are_those_of_the_answers(log):
    log.write_text("".join(line("tiny_v2_bbbb", time=time) for time in range(1, 201)))
    counters = Counters(log, "tiny", "v2")
    counters.update()

    assert [counters.versions["v2"].percentile(percent) for percent in (50, 99, 100)] == [100, 198, 200]
    assert counters.versions["v1"].percentile(50) is None
