"""What the machine of `test_access_machine.py` plays on, and the model it holds the rules against.

The model knows people and numbers only: who said yes to which revision and until when, what is asked of users and what they
promise, and when a grant ends. It shares no code with the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis.stateful import RuleBasedStateMachine
from model_organisms.errors import ModelOrganismsError
from model_organisms.records import Condition, Modifier, Role, Stated, UserState, VersionState
from model_organisms_registry.domain import access
from model_organisms_registry.domain.organisms import Subject

from tests.domain.cast import NOW, opaque, organism, user, version

OWNER, MAKER = "olga", "pat"
HOUSES = {"ada": "lab-a", "bob": "lab-a", "eve": "lab-b", "olga": "lab-o", "pat": "lab-o", "rex": "lab-b", "sam": "lab-c"}
REVIEWERS = {"bob", "eve", "olga", "pat", "rex", "sam"}
SUSPENDED = "sam"
BLINDED, PROJECT = "blinded", "project"
CONDITIONS = {BLINDED: Condition(Modifier.BLINDED), PROJECT: Condition(Modifier.PROJECT, name="probe")}
ASSERTED_FOR = 400 * 24
NEEDED = {1: 1, 2: 1, 3: 2, 4: 2}


@dataclass
class Model:
    """One request and what came of it, in plain words."""

    asker: str
    rung: int
    level: int
    lapses: float
    lasts: float
    asks: frozenset = frozenset()
    """What was asked of users when it was asked or amended."""
    promise: str = "nothing"
    """What the requester says of being blinded."""
    project: bool = False
    stated_at: float = 0.0
    ends: float | None = None
    """When the project is over."""
    revision: int = 1
    yes: dict[str, float] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    over: bool = False
    grant_ends: float | None = None
    revoked: bool = False

    def fits(self, asks):
        """yes, no, or a person must say."""
        if (BLINDED in asks and self.promise == "refuses") or (PROJECT in asks and not self.project):
            return "no"
        return "person" if PROJECT in asks or (BLINDED in asks and self.promise == "nothing") else "yes"

    def outlives(self, now):
        """Whether the grant would last longer than what was stated for it."""
        known = [self.ends] if self.ends is not None else []
        if self.project or self.promise == "keeps":
            known.append(self.stated_at + ASSERTED_FOR)
        return any(now + self.lasts >= end for end in known)

    def may_say(self, who, *, now, approve, now_level, suspended, gone, asks):
        if self.over or gone or now_level != self.level or who not in REVIEWERS or who in suspended:
            return False
        if asks != self.asks or (approve and self.outlives(now)):
            return False
        if who == self.asker or who in self.said or (approve and self.level == 4 and self.rung == 4):
            return False
        if who in {OWNER, MAKER}:
            return False
        house_spoke = HOUSES[who] in {
            HOUSES[other] for other, until in self.yes.items() if now < until and other not in suspended
        }
        own_house = HOUSES[who] == HOUSES[self.asker]
        return not approve or not ((self.level >= 3 and house_spoke) or (self.level == 4 and own_house))

    def enough(self, now, suspended):
        if self.over or (self.level, self.rung) == (4, 4):
            return False
        standing = {who for who, until in self.yes.items() if now < until and who not in suspended}
        voices = len({HOUSES[who] for who in standing}) if self.level >= 3 else len(standing)
        return voices >= self.needed

    @property
    def needed(self):
        by_level = 0 if (self.level, self.rung) == (1, 2) else NEEDED[self.level]
        return max(by_level, 1 if self.fits(self.asks) == "person" else 0)


class Stage(RuleBasedStateMachine):
    """An organism with one version, people, requests, and a clock."""

    def __init__(self):
        super().__init__()
        self.hours = 0.0
        self.organism = organism(owner=OWNER)
        self.version = version(self.organism, publisher=MAKER)
        self.suspended = set()
        self.asks = frozenset()
        self.requests = []
        self.models = []
        self.grants = {}

    @property
    def now(self):
        return NOW + timedelta(hours=self.hours)

    @property
    def gone(self):
        return self.version.state is VersionState.WITHDRAWN

    def subjects(self):
        return [Subject(self.organism, self.version)]

    def person(self, name):
        roles = [Role.RESEARCHER, *([Role.REVIEWER] if name in REVIEWERS else [])]
        state = UserState.SUSPENDED if name in self.suspended else UserState.ACTIVE
        return user(name, *roles, organisation=HOUSES[name], state=state)

    def people(self):
        return [self.person(name) for name in HOUSES]

    def decided(self, request, signed, who):
        about = {"subjects": self.subjects(), "reviewers": self.people()}
        return self.tried(lambda: access.review(request, signed, self.person(who), envelope=b"", now=self.now, **about))

    def tried(self, action):
        """The action's answer, or None where it was refused."""
        try:
            return action()
        except ModelOrganismsError:
            return None

    def stated(self, promise, ends, *, project):
        return Stated(
            project="probe" if project else "",
            accepts=(CONDITIONS[BLINDED],) if promise == "keeps" else (),
            declines=(Modifier.BLINDED,) if promise == "refuses" else (),
            until=None if ends is None else NOW + timedelta(hours=ends),
        )

    def settle(self, at):
        """What the workflow does after every step that could complete a request."""
        model, request = self.models[at], self.requests[at]
        complete = access.complete(request, now=self.now, reviewers=self.people(), witnessed=True)
        assert complete == (self.hours < model.lapses and model.enough(self.hours, self.suspended))
        if complete:
            grant = access.grant_from(request, opaque("grants", at + 1), now=self.now, reviewers=self.people(), witnessed=True)
            self.requests[at] = access.settled(request, grant)
            self.grants[at] = grant
            model.over, model.grant_ends = True, self.hours + model.lasts
