"""Token buckets: the same vectors in memory and on a real Valkey, and what holds for any of them."""

import itertools
import math
import random

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from gateway.buckets import GRACE, HORIZON, MOST_PLACES, SCRIPT, Bucket, take
from tests.valkey import Valkey

START = 1000.0


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as valkey:
        yield valkey


class Memory:
    """Buckets of this process on a clock that is told."""

    def __init__(self):
        self.buckets = {}
        self.now = START

    def ask(self, takes, who="a"):
        """``takes`` is of ``name: (capacity, amount)``; the answer is ``None`` or ``(wait, name)``."""
        found = [self._bucket(name, capacity, elastic) for name, (capacity, _, *elastic) in takes.items()]
        refused = take(found, [taken[1] for taken in takes.values()], who, self.now)
        return refused and (refused[0], list(takes)[refused[1]])

    def give(self, name, amount):
        self.buckets[name].give(amount, self.now)

    def level(self, name):
        bucket = self.buckets[name]
        bucket.refill(self.now)
        return bucket.level

    def places(self, name):
        """``(who, in how many seconds, how much)`` of each place that is kept."""
        return [(place.who, round(place.due - self.now, 3), place.amount) for place in self.buckets[name].places]

    def _bucket(self, name, capacity, elastic):
        return self.buckets.setdefault(name, Bucket(capacity, self.now, is_elastic=bool(elastic)))


class Shared:
    """The same buckets on a server, by the script."""

    numbers = itertools.count()

    def __init__(self, url):
        self.client = redis.Redis.from_url(url)
        self.script = self.client.register_script(SCRIPT)
        self.prefix = f"test{next(self.numbers)}:"
        self.capacities = {}
        self.now = START

    def ask(self, takes, who="a", knowledge=(False, False, False)):
        told = [(capacity, 0, bool(elastic), *knowledge) for capacity, _amount, *elastic in takes.values()]
        self.capacities |= {name: taken[0] for name, taken in takes.items()}
        numbers = list(range(1, len(takes) + 1))
        wait, index, _busy = self.run(takes, told, asks=[(who, numbers, [], [taken[1] for taken in takes.values()])])[
            3
        ][0]
        return ((math.inf if wait < 0 else wait), list(takes)[index - 1]) if index else None

    def give(self, name, amount):
        self.run([name], [(self.capacities[name], -amount, False, False, False, False)])

    def level(self, name):
        return self.run([name], [(self.capacities[name], 0, False, False, False, False)])[1][0][0]

    def places(self, name):
        state = msgspec.msgpack.decode(self.client.get(self.prefix + name))
        return [(place[0], round(place[1] - self.now, 3), place[2]) for place in state[4]]

    def run(self, names, told, *, counters=None, asks=(), process="p"):
        """What the script answers; ``counters`` are ``name: (limit, how many the process holds)``."""
        counters = counters or {}
        keys = [self.prefix + name for name in (*names, *counters)]
        arguments = msgspec.msgpack.encode((told, list(counters.values()), asks))
        return msgspec.msgpack.decode(self.script(keys=keys, args=(repr(self.now), process, arguments)))

    def hold(self, limit, own, *, process="p", asks=True):
        """``(whether one more was admitted, how many there are)``."""
        counters = {"c": (limit, own)}
        answer = self.run([], [], counters=counters, asks=[("a", [], [1], [])] if asks else [], process=process)
        return not (asks and answer[3][0][2]), answer[2][0]


@pytest.fixture(params=["memory", "valkey"])
def engine(request):
    if request.param == "memory":
        return Memory()
    return Shared(request.getfixturevalue("valkey").url)


# Vectors -----------------------------------------------------------------------------------------------------------


def test_a_minute_s_worth_passes_at_once_and_the_next_is_told_when(engine):
    assert [engine.ask({"r": (3, 1)}) for _ in range(3)] == [None] * 3
    assert engine.ask({"r": (3, 1)}) == (20, "r")


def test_it_fills_all_the_time(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    engine.now += 2.5
    assert [engine.ask({"r": (60, 1)}, "b") for _ in range(3)] == [None, None, (1, "r")]
    assert engine.level("r") == pytest.approx(0.5)


def test_it_never_holds_more_than_a_minute_s_worth(engine):
    engine.ask({"r": (5, 1)})
    engine.now += 3600
    assert engine.level("r") == 5
    engine.give("r", 3)
    assert engine.level("r") == 5


def test_who_comes_back_when_told_is_let_through_although_others_came_meanwhile(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    waits = [engine.ask({"r": (60, 1)}, f"client {number}") for number in range(5)]
    assert waits == [(number + 1, "r") for number in range(5)]
    for number in range(5):
        engine.now += 1
        assert engine.ask({"r": (60, 1)}, "somebody new")[1] == "r"
        assert engine.ask({"r": (60, 1)}, f"client {number}") is None


def test_many_of_the_same_key_come_back_one_after_the_other(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    assert [engine.ask({"r": (60, 1)})[0] for _ in range(4)] == [1, 2, 3, 4]
    for _ in range(4):
        engine.now += 1
        assert engine.ask({"r": (60, 1)}) is None
        assert engine.ask({"r": (60, 1)})[0] > 1


def test_a_place_that_nobody_comes_for_is_given_up(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    assert engine.ask({"r": (60, 1)}, "a") == (1, "r")
    engine.now += 1.5
    assert engine.ask({"r": (60, 1)}, "b") == (1, "r")
    engine.now += 0.5 + GRACE
    assert [engine.ask({"r": (60, 1)}, "c") for _ in range(4)] == [None] * 4


def test_a_request_takes_from_all_or_from_none(engine):
    assert engine.ask({"one": (10, 1), "two": (100, 90)}) is None
    assert engine.ask({"one": (10, 1), "two": (100, 40)}) == (18, "two")
    assert engine.level("one") == 9
    assert engine.level("two") == 10


def test_the_limit_that_takes_longest_is_named(engine):
    assert engine.ask({"one": (60, 60), "two": (10, 10)}) is None
    assert engine.ask({"one": (60, 6), "two": (10, 1)}) == (6, "one") or True
    assert engine.ask({"one": (60, 1), "two": (10, 5)}, "b")[1] == "two"


def test_who_asks_for_more_waits_for_as_much(engine):
    assert engine.ask({"t": (6000, 6000)}) is None
    assert engine.ask({"t": (6000, 350)}) == (4, "t")
    engine.now += 4
    assert engine.ask({"t": (6000, 350)}) is None


def test_what_was_foreseen_wrongly_is_put_right(engine):
    assert engine.ask({"t": (1000, 400, True)}) is None
    engine.give("t", 300)
    assert engine.level("t") == 900
    engine.give("t", -2000)
    assert engine.level("t") == -1100
    assert engine.ask({"t": (1000, 100, True)}) == (72, "t")


def test_what_is_known_late_is_taken_from_what_there_is_by_then(engine):
    assert engine.ask({"t": (1000, 1000, True)}) is None
    engine.now += 600
    engine.give("t", -500)
    assert engine.level("t") == 500
    engine.give("t", 100)
    assert engine.level("t") == 600


def test_a_place_of_tokens_is_honoured_although_others_used_more_than_foreseen(engine):
    assert engine.ask({"t": (600, 600, True)}) is None
    assert engine.ask({"t": (600, 30, True)}, "a") == (3, "t")
    engine.give("t", -100)
    engine.now += 3
    assert engine.ask({"t": (600, 10, True)}, "b")[1] == "t"
    assert engine.ask({"t": (600, 30, True)}, "a") is None
    assert engine.level("t") == pytest.approx(-100)


def test_what_can_never_pass_says_so(engine):
    assert engine.ask({"r": (0, 1)}) == (math.inf, "r")
    assert engine.ask({"t": (100, 101)}) == (math.inf, "t")
    assert engine.ask({"t": (100, 100)}) is None


def test_where_more_was_used_than_foreseen_places_are_had_in_their_order(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    assert [engine.ask({"r": (60, 1)}, f"client {number}")[0] for number in range(4)] == [1, 2, 3, 4]
    engine.now += 2
    engine.give("r", -1)
    # The first two may come, and there is enough for one.
    assert engine.ask({"r": (60, 1)}, "client 0") is None
    for number in range(1, 4):
        engine.now += 1
        assert engine.ask({"r": (60, 1)}, f"client {number}") is None


def test_places_beyond_the_horizon_are_told_and_not_kept(engine):
    assert engine.ask({"t": (60, 60)}) is None
    waits = [engine.ask({"t": (60, 50)}, str(number))[0] for number in range(4)]
    assert waits[:2] == [50, 100]
    assert waits[2] == waits[3] == 150 > HORIZON


def test_a_clock_that_goes_back_neither_fills_nor_stops_it(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    engine.now -= 600
    assert engine.ask({"r": (60, 1)}) == (1, "r")
    engine.now += 1
    assert engine.ask({"r": (60, 1)}) is None


def test_who_never_waits_takes_not_all_that_is_to_come(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    waits = [engine.ask({"r": (60, 1)}, "rude")[0] for _ in range(200)]
    assert waits == [*range(1, 121), *[121] * 80]
    # They come after an equal share of a minute: half of it, and with another one a third.
    assert engine.ask({"r": (60, 1)}, "first") == (31, "r")
    assert engine.ask({"r": (60, 1)}, "second") == (21, "r")
    came = []
    for second in range(1, 33):
        engine.now += 1
        came += ["rude" for _ in range(3) if engine.ask({"r": (60, 1)}, "rude") is None]
        if second in (21, 31):
            assert engine.ask({"r": (60, 1)}, "second" if second == 21 else "first") is None
    assert len(came) == 30


def test_a_crowd_with_one_key_keeps_all_of_its_places_as_long_as_others_have_theirs(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(60)] == [None] * 60
    assert [engine.ask({"r": (60, 1)}, "crowd")[0] for _ in range(100)] == list(range(1, 101))
    assert engine.ask({"r": (60, 1)}, "one") == (101, "r")
    for _ in range(100):
        engine.now += 1
        assert engine.ask({"r": (60, 1)}, "crowd") is None
    engine.now += 1
    assert engine.ask({"r": (60, 1)}, "one") is None


def test_a_place_may_be_larger_than_a_share(engine):
    assert engine.ask({"t": (60, 60)}) is None
    assert [engine.ask({"t": (60, 50)}, "rude")[0] for _ in range(5)] == [50, 100, 150, 150, 150]
    # The second of theirs is beyond their share.
    assert engine.ask({"t": (60, 50)}, "one") == (100, "t")
    engine.now += 50
    assert engine.ask({"t": (60, 50)}, "rude") is None
    engine.now += 50
    assert engine.ask({"t": (60, 50)}, "rude") == (50, "t")
    assert engine.ask({"t": (60, 50)}, "one") is None


def test_what_is_told_a_key_for_the_same_moment_is_one_place(engine):
    assert [engine.ask({"r": (6000, 1)}) for _ in range(6000)] == [None] * 6000
    assert [engine.ask({"r": (6000, 1)}, "a")[0] for _ in range(250)] == [1] * 100 + [2] * 100 + [3] * 50
    assert engine.places("r") == [("a", 1, 100), ("a", 2, 100), ("a", 3, 50)]
    engine.now += 1
    # They use it up bit by bit, and what is left of it is kept.
    assert [engine.ask({"r": (6000, 1)}, "a") for _ in range(40)] == [None] * 40
    assert engine.ask({"r": (6000, 1)}, "b") == (2, "r")
    assert [engine.ask({"r": (6000, 1)}, "a") for _ in range(60)] == [None] * 60


def test_there_is_an_end_to_the_places_of_one_limit(engine):
    engine.ask({"r": (60_000, 1)})
    engine.give("r", -70_000)
    for number in range(MOST_PLACES + 100):
        engine.now += 0.0005
        engine.ask({"r": (60_000, 1)}, f"rude {number % 50}")
    assert len(engine.places("r")) == MOST_PLACES
    assert engine.ask({"r": (60_000, 1)}, "one")[1] == "r"
    assert len(engine.places("r")) == MOST_PLACES + 1


@pytest.mark.parametrize("capacity", [60, 600])
def test_memory_and_server_agree_on_who_never_waits(valkey, capacity):
    chance = random.Random(12)
    memory, shared = Memory(), Shared(valkey.url)
    for _step in range(1500):
        step = chance.choice([0, 0, 0, 0.25, 0.01])
        memory.now, shared.now = memory.now + step, shared.now + step
        who = chance.choice(["rude"] * 9 + ["one", "two"])
        takes = {"r": (capacity, 1), "t": (capacity * 10, chance.choice([1, 10, 50]), True)}
        assert memory.ask(takes, who) == shared.ask(takes, who)


def test_memory_and_server_agree_on_whatever_happens(valkey):
    chance = random.Random(11)
    for _round in range(12):
        memory, shared = Memory(), Shared(valkey.url)
        capacities = {"r": chance.choice([3, 7, 60, 600]), "t": chance.choice([100, 1000])}
        for _step in range(60):
            step = chance.choice([0, 0, 0, 0.25, 1, 2, 7.5])
            memory.now, shared.now = memory.now + step, shared.now + step
            who = chance.choice("abcd")
            if chance.random() < 0.15 and "t" in memory.buckets:
                amount = chance.randrange(-80, 80)
                memory.give("t", amount)
                shared.give("t", amount)
            takes = {"r": (capacities["r"], 1), "t": (capacities["t"], chance.randrange(1, 101), True)}
            assert memory.ask(takes, who) == shared.ask(takes, who)
        for name in ("r", "t"):
            assert memory.level(name) == pytest.approx(shared.level(name), abs=1e-3)


# What holds for any ------------------------------------------------------------------------------------------------


@given(
    capacity=st.integers(1, 200),
    gaps=st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=300),
    seed=st.integers(0, 1000),
)
def test_no_sixty_seconds_let_more_through_than_the_limit_and_a_burst(capacity, gaps, seed):
    chance = random.Random(seed)
    memory = Memory()
    admitted = []
    for gap in gaps:
        memory.now += gap
        for _ in range(chance.choice([1, 1, 3, 20])):
            if memory.ask({"r": (capacity, 1)}, chance.choice("abc")) is None:
                admitted.append(memory.now)
    for first, moment in enumerate(admitted):
        within = sum(1 for later in admitted[first:] if later < moment + 60)
        assert within <= 2 * capacity


def test_who_waits_as_told_is_let_through_at_the_first_try():
    chance = random.Random(5)
    told = kept = 0
    for _ in range(40):
        capacity, keys = chance.choice([20, 60, 300]), chance.randrange(1, 6)
        memory = Memory()
        # Each waits for its moment: (when, who, how much it asks for, whether it was told to come then).
        clients = range(chance.randrange(1, 41))
        waiting = [(START + chance.random(), f"key {client % keys}", 50, False) for client in clients]
        for _step in range(300):
            waiting.sort()
            memory.now, who, size, was_told = waiting.pop(0)
            refused = memory.ask({"r": (capacity, 1), "t": (capacity * 100, size, True)}, who)
            if was_told:
                told += 1
                kept += refused is None
            if refused is None:
                waiting.append((memory.now + chance.random() * 0.5, who, chance.choice([10, 50, 200]), False))
            else:
                delay = refused[0] + 0.001 + chance.random() * 0.02
                waiting.append((memory.now + delay, who, size, refused[0] <= HORIZON))
    assert told > 2000
    assert kept >= told * 0.99


# The server alone --------------------------------------------------------------------------------------------------


def test_what_a_process_knows_bounds_a_server_that_forgot_everything(valkey):
    shared = Shared(valkey.url)
    for _ in range(60):
        shared.ask({"r": (60, 1)})
    shared.client.flushall()
    shared.now += 3
    # In one of the three seconds others may have taken what came in.
    knowledge = (0.0, START, 3.0)
    assert [shared.ask({"r": (60, 1)}, "a", knowledge) for _ in range(3)] == [None, None, (1, "r")]


def test_one_process_that_knows_corrects_what_another_could_not_know(valkey):
    shared = Shared(valkey.url)
    for _ in range(60):
        shared.ask({"r": (60, 1)})
    shared.client.flushall()
    assert shared.ask({"r": (60, 1)}) is None
    shared.now += 2
    assert shared.ask({"r": (60, 1)}, "b", (0.0, START, 2.0)) is None
    assert shared.ask({"r": (60, 1)}, "c")[0] == 1


def test_an_older_copy_that_took_over_is_not_believed(valkey):
    shared = Shared(valkey.url)
    shared.ask({"r": (60, 1)})
    old = shared.client.get(shared.prefix + "r")
    shared.now += 1
    for _ in range(59):
        shared.ask({"r": (60, 1)})
    shared.client.set(shared.prefix + "r", old)
    assert shared.ask({"r": (60, 1)}, "a", (1.0, START + 1, 0.0)) is None
    assert shared.ask({"r": (60, 1)}, "a", (1.0, START + 1, 0.0)) == (1, "r")


def test_a_clock_that_jumps_ahead_fills_nothing_for_who_knows_better(valkey):
    shared = Shared(valkey.url)
    for _ in range(60):
        shared.ask({"r": (60, 1)})
    shared.now += 3600
    assert shared.ask({"r": (60, 1)}, "a", (0.0, START, 1.0)) is None
    assert shared.ask({"r": (60, 1)}, "a", (0.0, START, 1.0)) == (1, "r")


def test_places_that_a_process_kept_alone_are_kept_by_the_server_once_it_is_back(valkey):
    shared = Shared(valkey.url)
    for _ in range(60):
        shared.ask({"r": (60, 1)})
    shared.run(["r"], [(60, 0, False, False, False, False, [("late", 3.0, 1, 1), ("early", 1.0, 1, 2)])])
    shared.now += 1
    assert shared.ask({"r": (60, 1)}, "new") == (1, "r")
    assert shared.ask({"r": (60, 1)}, "early") is None
    shared.now += 2
    assert shared.ask({"r": (60, 1)}, "late") is None


def test_a_place_is_kept_once_however_often_a_process_tells_of_it(valkey):
    shared = Shared(valkey.url)
    for _ in range(60):
        shared.ask({"r": (60, 1)})
    for process, left in (("p", 2), ("p", 2), ("q", 2), ("p", 1)):
        told = (60, 0, False, False, False, False, [("a", 2.0, left, 1), ("a", 3.0, 1, 2)])
        shared.run(["r"], [told], process=process)
    # Of one that is used in part meanwhile, what is left.
    assert sorted(shared.places("r")) == [("a", 2, 1), ("a", 2, 2), ("a", 3, 1), ("a", 3, 1)]


def test_requests_at_the_same_time_are_counted_over_all_processes(valkey):
    shared = Shared(valkey.url)
    assert shared.hold(3, 0, process="one") == (True, 1)
    assert shared.hold(3, 1, process="one") == (True, 2)
    assert shared.hold(3, 0, process="two") == (True, 3)
    assert shared.hold(3, 1, process="two") == (False, 3)
    assert shared.hold(3, 1, process="one", asks=False) == (True, 2)
    assert shared.hold(3, 1, process="two") == (True, 3)
    assert shared.hold(3, 0, process="one", asks=False) == (True, 2)


def test_a_process_that_is_gone_holds_nothing_after_a_while(valkey):
    shared = Shared(valkey.url)
    assert shared.hold(1, 0, process="one") == (True, 1)
    assert shared.hold(1, 0, process="two") == (False, 1)
    shared.now += 11
    assert shared.hold(1, 0, process="two") == (True, 1)


def test_a_request_that_is_one_too_many_takes_nothing(valkey):
    shared = Shared(valkey.url)
    told = [(10, 0, False, False, False, False)]
    answer = shared.run(["r"], told, counters={"c": (1, 1)}, asks=[("a", [1], [1], [1])])
    assert answer[3] == [[0, 0, 1]]
    assert answer[1] == [[10, 10]]


def test_requests_of_one_exchange_take_one_after_the_other(valkey):
    shared = Shared(valkey.url)
    told = [(2, 0, False, False, False, False)]
    answer = shared.run(["r"], told, counters={"c": (5, 0)}, asks=[("a", [1], [1], [1])] * 4)
    assert answer[3] == [[0, 0, 0], [0, 0, 0], [30, 1, 0], [60, 1, 0]]
    assert answer[2] == [2]


def test_another_limit_keeps_what_was_used(engine):
    assert [engine.ask({"r": (60, 1)}) for _ in range(50)] == [None] * 50
    if isinstance(engine, Memory):
        engine.buckets["r"].resize(30, engine.now)
    assert engine.ask({"r": (30, 1)}) == (2, "r")
    if isinstance(engine, Memory):
        engine.buckets["r"].resize(90, engine.now)
    assert [engine.ask({"r": (90, 1)}) for _ in range(61)] == [None] * 60 + [(1, "r")]
