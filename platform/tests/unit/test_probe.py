"""The probe's arithmetic: what its ledger calls lost, doubled, silent."""

from workshop.probe import Answer, Ledger


def test_an_acknowledged_message_that_is_not_there_is_lost():
    ledger = Ledger(acknowledged={1: 10, 2: 11})
    ledger.stored[1] = 1

    assert (ledger.lost, ledger.doubled) == ([2], [])


def test_a_message_that_is_there_twice_is_doubled_even_if_nobody_acknowledged_it():
    ledger = Ledger()
    ledger.stored[3] = 2

    assert (ledger.lost, ledger.doubled) == ([], [3])


def test_silence_is_the_longest_time_without_a_good_answer():
    ledger = Ledger(
        answers=[
            Answer("GET", 0.0, 0.1, "a", None),
            Answer("GET", 1.0, 0.1, None, "503"),
            Answer("POST", 3.0, 0.1, "a", None),
        ]
    )

    assert round(ledger.longest_silence, 3) == 3.0
    assert [answer.failure for answer in ledger.failed()] == ["503"]
    assert ledger.failed("POST") == []


def test_what_failed_before_an_answer_had_begun_and_what_was_cut_off_are_counted_apart():
    ledger = Ledger(
        answers=[
            Answer("GET", 0.0, 0.1, "a", "IncompleteRead", is_cut_off=True),
            Answer("GET", 0.0, 0.1, None, "503"),
            Answer("POST", 0.0, 0.1, "a", None),
        ]
    )

    assert [answer.failure for answer in ledger.failed()] == ["503"]
    assert [answer.failure for answer in ledger.cut_off("GET")] == ["IncompleteRead"]
    assert ledger.cut_off("POST") == []
