"""Any order of asking, deciding, amending, raising, conditioning, revoking and waiting: nobody gets in whom a model keeps out.

The model is in `access_model.py`, and shares no code with the rules.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, precondition, rule
from model_organisms.records import GrantState, Level, Purpose, RequestState, Rung, UserState
from model_organisms_registry.domain import access, organisms, recall
from model_organisms_registry.domain.waiting import clock

from tests.domain.access_model import BLINDED, CONDITIONS, HOUSES, MAKER, OWNER, PROJECT, REVIEWERS, SUSPENDED, Model, Stage
from tests.domain.cast import HOUR, WHY, opaque, organism, statement, version

ASKERS = st.sampled_from(["ada", "eve", "olga"])
RUNGS = st.sampled_from([Rung.SAMPLE, Rung.PROBE, Rung.PULL])
PROMISES = st.sampled_from(["nothing", "keeps", "refuses"])
ASKS = st.sampled_from([frozenset(), frozenset({BLINDED}), frozenset({PROJECT}), frozenset({BLINDED, PROJECT})])
MOST_AT_ONCE = 2
"""Few requests with many decisions each say more than many with one."""


class AccessMachine(Stage):
    asked = Bundle("asked")

    @initialize(level=st.sampled_from([1, 1, 2, 3, 3, 4]), asks=ASKS)
    def publish(self, level, asks):
        self.asks = asks
        asked = tuple(CONDITIONS[name] for name in sorted(asks))
        self.organism = replace(organism(owner=OWNER, level=Level(level)), conditions=asked)
        self.version = version(self.organism, publisher=MAKER)

    @precondition(lambda self: sum(not model.over for model in self.models) < MOST_AT_ONCE)
    @rule(
        target=asked,
        who=ASKERS,
        rung=RUNGS,
        lasts=st.integers(1, 24 * 20),
        promise=PROMISES,
        project=st.booleans(),
        ends=st.sampled_from([None, None, 24 * 2, 24 * 30]),
    )
    def ask(self, *, who, rung, lasts, promise, project, ends):
        level = int(max(self.organism.level, self.version.level))
        over = None if ends is None else self.hours + ends
        model = Model(who, int(rung), level, self.hours + 30 * 24, lasts, self.asks, promise, project, self.hours, over)
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
                stated=self.stated(promise, over, project=project),
                now=self.now,
            )
        )
        refused = model.fits(self.asks) == "no" or model.outlives(self.hours)
        assert (made is None) == (self.gone or (level == 4 and rung == 4) or refused)
        if made is None:
            return multiple()
        self.requests.append(made)
        assert made.needed == model.needed
        self.models.append(model)
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
            who, now=self.hours, approve=approve, now_level=level, suspended=self.suspended, gone=self.gone, asks=self.asks
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

    @rule(at=asked, lasts=st.integers(1, 24 * 20), promise=st.none() | PROMISES)
    def amend(self, at, lasts, promise):
        """Change the time, and perhaps what is stated; what is not stated anew keeps its age."""
        model, request = self.models[at], self.requests[at]
        level = int(max(self.organism.level, self.version.level))
        changes = {"lasts": lasts, "asks": self.asks} | ({"promise": promise, "stated_at": self.hours} if promise else {})
        would = replace(model, **changes)
        anew = self.stated(promise, model.ends, project=model.project) if promise else None
        changed = self.tried(
            lambda: access.amend(
                request,
                revision=request.revision,
                subjects=self.subjects(),
                duration=lasts * HOUR,
                stated=anew,
                now=self.now,
            )
        )
        fits = would.fits(self.asks) != "no" and not would.outlives(self.hours)
        allowed = fits and not model.over and not self.gone and self.hours < model.lapses and (level, model.rung) != (4, 4)
        if changed is None:
            # A budget asked under a lower level may be too large now; nothing else is the model's to know.
            assert not allowed or level > model.level
            return
        assert allowed
        self.requests[at] = changed
        for name, value in changes.items():
            setattr(model, name, value)
        model.level, model.lapses = level, self.hours + 30 * 24
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

    @rule(asks=ASKS)
    def condition(self, asks):
        """The owner asks something else of users: what waits must be amended, what was granted stays."""
        changed = self.tried(
            lambda: organisms.condition(self.organism, purposes=(), conditions=[CONDITIONS[name] for name in sorted(asks)])
        )
        assert (changed is None) == (asks == self.asks)
        if changed is not None:
            self.organism, self.asks = changed, asks

    @rule(target=asked, at=asked)
    def ask_again(self, at):
        """What is over and was not granted is asked again, with what was stated and its age."""
        model, request = self.models[at], self.requests[at]
        level = int(max(self.organism.level, self.version.level))
        new = Model(
            model.asker,
            model.rung,
            level,
            self.hours + 30 * 24,
            model.lasts,
            self.asks,
            model.promise,
            model.project,
            model.stated_at,
            model.ends,
        )
        made = self.tried(
            lambda: access.reapply(
                request,
                opaque("requests", len(self.requests) + 1),
                requester=self.person(model.asker),
                subjects=self.subjects(),
                now=self.now,
            )
        )
        ended = model.over or self.hours >= model.lapses
        fits = new.fits(self.asks) != "no" and not new.outlives(self.hours)
        allowed = ended and at not in self.grants and not self.gone and fits and (level, model.rung) != (4, 4)
        if made is None:
            # A budget asked under a lower level may be too large now; nothing else is the model's to know.
            assert not allowed or level > model.level
            return multiple()
        assert allowed
        assert (made.previous, made.approvals) == (request.name, ())
        self.requests.append(made)
        self.models.append(new)
        self.settle(len(self.requests) - 1)
        return len(self.requests) - 1

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
    def those_who_are_told_of_are_those_who_may_decide(self):
        level = int(max(self.organism.level, self.version.level))
        for model, request in zip(self.models, self.requests, strict=True):
            if model.over:
                continue
            stands = clock(
                access.lapse(request, now=self.now),
                subjects=self.subjects(),
                people=[person for person in self.people() if person.state is UserState.ACTIVE],
                now=self.now,
                witnessed=True,
            )
            could = {
                who
                for who in HOUSES
                if self.hours < model.lapses
                and model.may_say(
                    who,
                    now=self.hours,
                    approve=True,
                    now_level=level,
                    suspended=self.suspended,
                    gone=self.gone,
                    asks=self.asks,
                )
            }
            assert stands.reviewers == len(could)
            assert set(stands.organisations) == {f"organisations/{HOUSES[who]}" for who in could}

    @invariant()
    def grants_carry_what_they_were_given_under(self):
        for at, grant in self.grants.items():
            assert set(grant.conditions) == {CONDITIONS[name] for name in self.models[at].asks}
            assert not self.models[at].ends or self.models[at].grant_ends < self.models[at].ends

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
TestAccess.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
