"""The places of deliveries: what is slow is in nobody's way."""

from __future__ import annotations

from gateway.outbound.places import FRESH, MOST_FRESH, REMEMBERED, SLOW_AFTER, Places


def places(**limits: int) -> Places:
    return Places(**({"most": 3, "most_slow": 1000, "for_proven": 0} | limits))


def test_each_attempt_takes_a_place_and_leaves_it() -> None:
    now = places()
    one, _two = now.take("a", 0), now.take("a", 0)
    assert (now.room(0), now.busy()) == (1, {"a": 2})
    now.take("b", 0)
    assert (now.room(0), now.until_room(0)) == (0, SLOW_AFTER)
    now.leave(one, 1, delivered=True)
    assert (now.room(1), now.busy()) == (1, {"a": 1, "b": 1})


def test_what_takes_long_gives_up_its_place_but_not_its_share() -> None:
    now = places(most_slow=2)
    now.take("a", 0), now.take("a", 0.5), now.take("b", 1)
    assert now.room(1) == 0
    assert now.until_room(1) == SLOW_AFTER - 1
    assert now.room(SLOW_AFTER) == 1
    assert now.room(SLOW_AFTER + 0.5) == 2
    assert now.room(SLOW_AFTER + 1) == 2  # no more than two may be so slow
    assert now.busy() == {"a": 2, "b": 1}
    assert now.until_room(SLOW_AFTER + 1) == float("inf")


def test_only_so_many_begin_at_once() -> None:
    now = places(most=3 * MOST_FRESH)
    early = [now.take("a", 0) for _ in range(10)]
    for _ in range(MOST_FRESH - 10):
        now.take("a", FRESH / 2)
    assert (now.room(FRESH / 2), now.until_room(FRESH / 2)) == (0, FRESH / 2)
    assert now.room(FRESH) == 10
    now.leave(early[0], FRESH / 2, delivered=True)
    assert now.room(FRESH / 2) == 1
    assert now.room(2 * FRESH) == MOST_FRESH
    assert now.until_room(2 * FRESH) == SLOW_AFTER - 2 * FRESH


def test_who_kept_us_waiting_in_vain_has_one_place_until_it_fares_better() -> None:
    now = places()
    now.leave(now.take("a", 0), SLOW_AFTER, delivered=False)
    assert "a" in now.standing(2).slow
    again = now.take("a", 10)
    assert "a" in now.standing(10).slow
    now.leave(again, 11, delivered=False)  # a quick refusal is an answer
    assert "a" not in now.standing(11).slow


def test_a_slow_server_that_takes_mail_keeps_its_share() -> None:
    now = places()
    now.leave(now.take("a", 0), SLOW_AFTER * 10, delivered=True)
    assert "a" not in now.standing(99).slow


def test_a_part_is_for_those_that_took_something_lately() -> None:
    now = places(most=10, most_slow=5, for_proven=2)
    assert now.standing(0).unproven_room == 8
    now.leave(now.take("good", 0), 1, delivered=True)
    assert "good" in now.standing(1).proven
    now.take("good", 1)
    new = [now.take(f"new{number}", 1) for number in range(8)]
    assert (now.room(1), now.standing(1).unproven_room) == (1, 0)
    later = 1 + SLOW_AFTER
    assert now.room(later) == 6  # of nine that are slow, five are in nobody's way
    assert now.standing(later).unproven_room == 4
    now.leave(new[0], later, delivered=False)
    now.leave(now.take("good", later), later + SLOW_AFTER, delivered=False)  # it was silent this time
    assert "good" not in now.standing(9).proven


def test_the_proven_ones_are_asked_for_as_they_are_now() -> None:
    now = places(most=1, for_proven=1)
    assert now.standing(0).asked == ()
    for name in ("a", "b"):
        now.leave(now.take(name, 0), 0, delivered=True)
    assert sorted(now.standing(0).asked) == ["a", "b"]
    now.leave(now.take("a", 0), SLOW_AFTER, delivered=False)
    assert now.standing(9).asked == ("b",)
    now.leave(now.take("c", 9), 9, delivered=True)
    assert {names for _ in range(50) if (names := now.standing(9).asked)} == {("b", "c"), ("c", "b")}


def test_what_is_remembered_is_bounded() -> None:
    now = places()
    for number in range(REMEMBERED + 5):
        now.leave(now.take(f"d{number}", 0), SLOW_AFTER, delivered=False)
    slow = now.standing(9).slow
    assert "d0" not in slow
    assert f"d{REMEMBERED + 4}" in slow
    assert "d5" in slow
