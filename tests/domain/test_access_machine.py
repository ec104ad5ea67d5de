"""Any order of asking, deciding, amending, raising, withdrawing, revoking and waiting: nobody gets in whom a model keeps out.

The model knows people and numbers only: who said yes to which revision and until when, and when a grant ends. It shares no code
with the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from model_organisms.errors import ModelOrganismsError
from model_organisms.records import GrantState, Level, Purpose, RequestState, Role, Rung, UserState, VersionState
from model_organisms_registry.domain import access, organisms, recall
from model_organisms_registry.domain.organisms import Subject

from tests.domain.cast import HOUR, NOW, WHY, opaque, organism, statement, user, version

OWNER, MAKER = "olga", "pat"
HOUSES = {"ada": "lab-a", "bob": "lab-a", "eve": "lab-b", "olga": "lab-o", "pat": "lab-o", "rex": "lab-b", "sam": "lab-c"}
REVIEWERS = {"bob", "eve", "olga", "pat", "rex", "sam"}
SUSPENDED = "sam"
ASKERS = st.sampled_from(["ada", "eve", "olga"])
RUNGS = st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL])
MOST_AT_ONCE = 2
"""Few requests with many decisions each say more than many with one."""
NEEDED = {1: 1, 2: 1, 3: 2, 4: 2}


@dataclass
class Model:
    """One request and what came of it, in plain words."""

    asker: str
    rung: int
    level: int
    lapses: float
    lasts: float
    revision: int = 1
    yes: dict[str, float] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    over: bool = False
    grant_ends: float | None = None
    revoked: bool = False

    def may_say(self, who, *, now, approve, now_level, suspended, gone):
        if self.over or gone or now_level != self.level or who not in REVIEWERS or who in suspended:
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
        return voices >= (0 if (self.level, self.rung) == (1, 2) else NEEDED[self.level])


class AccessMachine(RuleBasedStateMachine):
    asked = Bundle("asked")

    def __init__(self):
        super().__init__()
        self.hours = 0.0
        self.organism = organism(owner=OWNER)
        self.version = version(self.organism, publisher=MAKER)
        self.suspended = set()
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

    @initialize(level=st.sampled_from([1, 2, 3, 3, 4]))
    def publish(self, level):
        self.organism = organism(owner=OWNER, level=Level(level))
        self.version = version(self.organism, publisher=MAKER)

    @precondition(lambda self: sum(not model.over for model in self.models) < MOST_AT_ONCE)
    @rule(target=asked, who=ASKERS, rung=RUNGS, lasts=st.integers(1, 24 * 20))
    def ask(self, who, rung, lasts):
        made = self.tried(
            lambda: access.open_request(
                opaque("requests", len(self.requests) + 1),
                requester=self.person(who),
                subjects=self.subjects(),
                rung=rung,
                purpose=Purpose.INTERPRETABILITY,
                justification=WHY,
                need=WHY,
                duration=lasts * HOUR,
                now=self.now,
            )
        )
        level = int(max(self.organism.level, self.version.level))
        assert (made is None) == (self.gone or (level == 4 and rung == 4))
        if made is None:
            return multiple()
        self.requests.append(made)
        self.models.append(Model(who, int(rung), level, self.hours + 30 * 24, lasts))
        self.settle(len(self.requests) - 1)
        return len(self.requests) - 1

    @rule(
        at=asked,
        who=st.sampled_from(sorted(HOUSES)),
        approve=st.sampled_from([True] * 7 + [False]),
        lives=st.sampled_from([1, 24, 72]),
    )
    def decide(self, at, who, approve, lives):
        model, request = self.models[at], self.requests[at]
        signed = statement(request, approve=approve, expires=self.now + lives * HOUR)
        decided = self.decided(request, signed, who)
        level = int(max(self.organism.level, self.version.level))
        allowed = self.hours < model.lapses and model.may_say(
            who, now=self.hours, approve=approve, now_level=level, suspended=self.suspended, gone=self.gone
        )
        assert (decided is not None) == allowed
        if decided is not None:
            self.requests[at] = decided
            model.said.add(who)
            if approve:
                model.yes[who] = self.hours + lives
            else:
                model.over = True
            self.settle(at)

    @rule(at=asked, who=st.sampled_from(sorted(REVIEWERS)), back=st.integers(1, 3), other=asked)
    def decide_on_what_is_not_this(self, at, who, back, other):
        request = self.requests[at]
        stale = statement(replace(request, revision=request.revision - back), expires=self.now + HOUR)
        foreign = statement(self.requests[other], expires=self.now + HOUR)
        for signed in (stale, *([foreign] if other != at else [])):
            assert not self.decided(request, signed, who)

    @rule(at=asked, lasts=st.integers(1, 24 * 20))
    def amend(self, at, lasts):
        model, request = self.models[at], self.requests[at]
        level = int(max(self.organism.level, self.version.level))
        changed = self.tried(
            lambda: access.amend(
                request, revision=request.revision, subjects=self.subjects(), duration=lasts * HOUR, now=self.now
            )
        )
        allowed = not model.over and not self.gone and self.hours < model.lapses and (level, model.rung) != (4, 4)
        if changed is None:
            # A budget asked under a lower level may be too large now; nothing else is the model's to know.
            assert not allowed or level > model.level
            return
        assert allowed
        self.requests[at] = changed
        model.level, model.lasts, model.lapses = level, lasts, self.hours + 30 * 24
        model.revision += 1
        model.yes.clear()
        model.said.clear()
        self.settle(at)

    @rule(at=asked)
    def take_back(self, at):
        model = self.models[at]
        withdrawn = self.tried(lambda: access.withdraw(self.requests[at], now=self.now))
        assert (withdrawn is not None) == (not model.over and self.hours < model.lapses)
        if withdrawn is not None:
            self.requests[at], model.over = withdrawn, True

    @rule(at=asked)
    def revoke(self, at):
        model = self.models[at]
        if at in self.grants:
            revoked = self.tried(lambda: access.revoke(self.grants[at], reason="Misused.", now=self.now))
            assert (revoked is not None) == (not model.revoked and self.hours < model.grant_ends)
            if revoked is not None:
                self.grants[at], model.revoked = revoked, True

    @rule(hours=st.sampled_from([0.5, 1, 23, 24, 71, 24 * 15]))
    def wait(self, hours):
        self.hours += hours

    @rule(level=st.sampled_from(Level))
    def grade(self, level):
        """One reviewer may only raise."""
        before = self.organism.level
        changed = self.tried(lambda: organisms.relevel(self.organism, [self.version], level, by=[self.person("rex")]))
        assert (changed is not None) == (level > before)
        if changed is not None:
            self.organism, (self.version,) = changed

    @rule()
    def suspend_a_reviewer(self):
        self.suspended.add(SUSPENDED)

    @rule(sure=st.integers(0, 9))
    def withdraw_version(self, sure):
        if sure == 0 and not self.gone:
            self.version = recall.withdraw(
                self.version, reason="Found to be worse than thought.", by=self.person("rex"), now=self.now
            )

    @invariant()
    def only_those_whom_the_model_lets_in_get_in(self):
        level = int(max(self.organism.level, self.version.level))
        for who in ("ada", "eve", "olga"):
            for rung in (Rung.SAMPLE, Rung.PROBE, Rung.PULL):
                held = self.tried(
                    lambda who=who, rung=rung: access.require(
                        self.grants.values(), self.subjects()[0].ref, user=f"users/{who}", level=level, rung=rung, now=self.now
                    )
                )
                lets = any(
                    model.asker == who
                    and model.grant_ends is not None
                    and self.hours < model.grant_ends
                    and not model.revoked
                    and model.rung >= rung
                    and model.level >= level
                    for model in self.models
                )
                assert (held is not None) == lets

    @invariant()
    def states_agree(self):
        for at, (request, model) in enumerate(zip(self.requests, self.models, strict=True)):
            assert request.revision == model.revision
            assert (request.state is RequestState.PENDING) == (not model.over)
            assert (at in self.grants) == (request.state is RequestState.GRANTED)
            if at in self.grants:
                ended = self.hours >= model.grant_ends
                expected = GrantState.REVOKED if model.revoked else GrantState.EXPIRED if ended else GrantState.ACTIVE
                assert access.state_of(self.grants[at], now=self.now) is expected


TestAccess = AccessMachine.TestCase
TestAccess.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
