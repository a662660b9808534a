from hubspot_deals.local.restarts import MOST_ENDS, WITHIN_SECONDS, Restarts


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_until_there_are_no_more_restarts() -> None:
    restarts = Restarts(Clock())

    pauses = [restarts.note_end("api") for _ in range(MOST_ENDS)]

    assert pauses[-1] is None
    waited = [pause for pause in pauses if pause is not None]
    assert len(waited) == MOST_ENDS - 1
    assert waited == sorted(set(waited))
    assert sum(waited) < WITHIN_SECONDS / 2


def test_ends_that_are_far_apart_are_not_held_against_a_process() -> None:
    clock = Clock()
    restarts = Restarts(clock)
    first = restarts.note_end("api")

    for _ in range(3 * MOST_ENDS):
        clock.now += WITHIN_SECONDS
        assert restarts.note_end("api") == first


def test_each_process_is_counted_alone() -> None:
    restarts = Restarts(Clock())
    for _ in range(MOST_ENDS):
        restarts.note_end("api")

    assert restarts.note_end("daemon") == Restarts(Clock()).note_end("daemon")
