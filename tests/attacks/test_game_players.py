"""Attacks on auditing games by who sits in them: who oversees or made an organism, or has heard it in another game."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.client.games import Seat

from tests.support.games import arena


@pytest.fixture(scope="module")
def ground(tmp_path_factory, qwen):
    with arena(tmp_path_factory.mktemp("seats") / "data", qwen) as made:
        yield made


def refused(call, *arguments, **options):
    with pytest.raises(errors.ModelOrganismsError) as error:
        call(*arguments, **options)
    return error.value


def test_nobody_plays_who_oversees_or_makes(ground):
    seats = [Seat(ground.versions["flatters"])]
    for player in ("ravi", "aud", "pia", "admin"):
        with pytest.raises(errors.Denied):
            ground.person("rena").games.create("Which?", seats, players=[player], deadline=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(errors.Denied):
        ground.person("petra").games.create("Mine", seats, players=["paul"], deadline=datetime.now(UTC) + timedelta(hours=1))


def test_who_was_in_another_game_of_an_organism_knows_it(ground):
    """Its truth names what is behind the aliases, and what they said: in the next game the same words give it away."""
    seats = [Seat(ground.publish(ground.files["sleeps"]), answer="sleeps"), *ground.seats()[-1:]]
    ends = ground.clock() + timedelta(hours=1)
    # Two drafts at once: the second is refused when it is to be opened, for by then the first runs, and ends at another time.
    first, second = (ground.draft(seats=seats, deadline=ends + timedelta(minutes=number)) for number in (0, 1))
    together = ground.draft(seats=seats, deadline=ends)
    for game in (first, together):
        ground.person("rena").motions.second(ground.person("ravi").games.propose_opening(game))
    seat = ground.person("petra").games.join(first.name)
    late = refused(ground.person("ravi").games.propose_opening, second)
    assert isinstance(late, errors.Denied)
    assert "knows an organism" in late.message
    ground.clock.ahead = timedelta(hours=1, seconds=5)
    try:
        ground.person("petra").games.reveal(seat)
        again = refused(ground.draft, seats=seats)
        assert isinstance(again, errors.Denied)
        assert again.details["player"] == "users/petra"
        ground.draft(seats=ground.seats())  # of others she may
    finally:
        ground.clock.ahead = timedelta(0)
