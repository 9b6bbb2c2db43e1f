"""Stages of the embedded reader: what is given arrives in order, and after a failure nothing more is begun."""

import threading
import time

import pytest

from antenna_assets.streaming.embedded.stages import Abandoned, Handover, Stages


def run_to_the_end(stages: Stages) -> BaseException | None:
    stages.join()
    assert not stages.are_running
    return stages.failure


def test_what_the_first_stage_gives_reaches_the_last_one_in_order() -> None:
    stages, numbers, squares = Stages(), Handover[int](), Handover[int]()
    found: list[int] = []

    def give() -> None:
        for number in range(100):
            numbers.give(number)

    def square() -> None:
        for number in numbers:
            squares.give(number**2)

    stages.start("collect", lambda: found.extend(squares), takes=squares)
    stages.start("square", square, takes=numbers, gives=squares)
    stages.start("give", give, gives=numbers)
    assert run_to_the_end(stages) is None
    assert found == [number**2 for number in range(100)]


def test_the_giver_waits_until_the_taker_takes() -> None:
    handover = Handover[str]()
    given = threading.Event()

    def give() -> None:
        handover.give("one")
        given.set()

    thread = threading.Thread(target=give)
    thread.start()
    assert not given.wait(0.05)
    assert not handover.is_wanted
    taken = iter(handover)
    assert next(taken) == "one"
    assert given.wait(10)
    thread.join()


def test_a_taker_that_waits_is_seen() -> None:
    handover = Handover[str]()
    thread = threading.Thread(target=lambda: list(handover))
    thread.start()
    end = time.monotonic() + 10
    while not handover.is_wanted:
        assert time.monotonic() < end
    handover.complete()
    thread.join()


def test_after_the_last_stage_failed_nothing_more_is_given_to_it() -> None:
    stages, numbers = Stages(), Handover[int]()
    given: list[int] = []

    def give() -> None:
        for number in range(100):
            numbers.give(number)
            given.append(number)

    def fail_at_the_third() -> None:
        for number in numbers:
            if number == 2:
                raise KeyError("the third")

    stages.start("fail", fail_at_the_third, takes=numbers)
    stages.start("give", give, gives=numbers)
    assert isinstance(run_to_the_end(stages), KeyError)
    assert given in ([0, 1], [0, 1, 2])


def test_what_was_given_before_the_first_stage_failed_is_finished() -> None:
    stages, numbers = Stages(), Handover[int]()
    found: list[int] = []

    def fail_after_two() -> None:
        numbers.give(0)
        numbers.give(1)
        raise KeyError("the third")

    stages.start("collect", lambda: found.extend(numbers), takes=numbers)
    stages.start("fail", fail_after_two, gives=numbers)
    assert isinstance(run_to_the_end(stages), KeyError)
    assert found == [0, 1]


def test_the_first_failure_is_the_one_that_is_kept() -> None:
    stages, numbers = Stages(), Handover[int]()

    def fail_at_once() -> None:
        for _ in numbers:
            raise KeyError("first")

    def fail_for_it() -> None:
        numbers.give(0)
        try:
            numbers.give(1)
        except Abandoned:
            raise ValueError("second") from None

    stages.start("first", fail_at_once, takes=numbers)
    stages.start("second", fail_for_it, gives=numbers)
    assert isinstance(run_to_the_end(stages), KeyError)


def test_giving_to_what_takes_nothing_more_is_an_error() -> None:
    handover = Handover[int]()
    handover.abandon()
    with pytest.raises(Abandoned):
        handover.give(1)
