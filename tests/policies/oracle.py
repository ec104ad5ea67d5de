"""Who may do what, written from the prose of SECURITY.md, the threat model and the guides, and from no policy.

Plain facts in, yes or no out. Where this and the policies disagree, one of them is wrong; `test_table.py` says about which call.
"""

from __future__ import annotations

from model_organisms.records import Role

RESEARCHER, REVIEWER, PUBLISHER, AUDITOR, ADMIN = Role.RESEARCHER, Role.REVIEWER, Role.PUBLISHER, Role.AUDITOR, Role.ADMIN
NEEDED = {"openSession": 2, "openLocalSession": 4, "sample": 2, "probe": 3, "pull": 4}
"""The rung that a use needs a grant for."""


def may(action, kind, facts):
    """Whether the caller may."""
    # Only an account that stands is served, and nothing is served that cannot be written down.
    return facts["active"] and facts["ledger"] and RULES[action](Facts(kind, facts))


class Facts:
    """The facts of a call, as words."""

    def __init__(self, kind, facts):
        self.kind = kind
        self.known = facts

    def __getattr__(self, name):
        return self.known[name]

    def has(self, *roles):
        return any(role in self.known["roles"] for role in roles)

    @property
    def danger(self):
        """A level that is not known is the highest."""
        return self.known["level"] if self.known["level"] in (1, 2, 3, 4) else 4

    @property
    def published(self):
        """What is quarantined or withdrawn is served to nobody."""
        return self.state == "published"

    @property
    def sees(self):
        """A hidden organism is there for its owner, for who holds a grant on it, and for reviewers."""
        return not self.hidden or self.owner or self.grantee or self.has(REVIEWER)


def asks(call):
    """Researchers ask, for what they see and can still be had; weights of CL4 nobody can even ask for."""
    return call.has(RESEARCHER) and call.sees and call.published and not (call.danger == 4 and call.rung == 4)


def decides(call):
    """Reviewers decide, but not on what they have an interest in: asked for, own, or made; and nobody on weights of CL4."""
    interested = call.requester or call.owner or call.author
    return call.has(REVIEWER) and not interested and not (call.danger == 4 and call.rung == 4)


def signs(call):
    """Levels are the reviewers' to lower and games theirs to open; policies, lost keys and appointments the admins'; destroying a
    key is either's.
    """
    admins = call.has(ADMIN) and call.motion in {"adopt-policies", "replace-keys", "appoint", "destroy-key"}
    return admins or (call.has(REVIEWER) and call.motion in {"lower-level", "destroy-key", "open-game"})


def uses(needed, *, in_cell, leaves=False, own=lambda _: True):
    """A researcher comes closer by a grant of the rung, for the level as it is now, that stands; to what is published; in a cell
    with all its walls above CL1, and with a witness at CL4. Weights of CL4 never leave, into whatever cell.
    """

    def rule(call):
        granted = call.grant_rung >= needed and call.grant_level >= call.danger and not call.expired and not call.revoked
        walled = not in_cell or ((call.danger == 1 or call.jail) and (call.danger < 4 or call.witness))
        safe = walled and not (leaves and call.danger == 4)
        return call.has(RESEARCHER) and own(call) and granted and call.published and safe

    return rule


def plays(call):
    """A researcher whom a game names, and who could not look behind it as one who oversees."""
    return call.has(RESEARCHER) and call.player and not call.has(REVIEWER, AUDITOR, ADMIN)


def role(*roles):
    return lambda call: call.has(*roles)


def relation(*names):
    return lambda call: any(getattr(call, name) for name in names)


def either(*rules):
    return lambda call: any(rule(call) for rule in rules)


OVERSIGHT = role(REVIEWER, AUDITOR, ADMIN)

RULES = {
    # Whoever is enrolled may look at what is not hidden.
    "list": lambda _: True,
    "describe": lambda call: call.sees,
    "createOrganism": role(PUBLISHER),
    "publish": lambda call: call.has(PUBLISHER) and call.owner,
    "attest": lambda call: call.has(RESEARCHER, REVIEWER, PUBLISHER) and call.sees and call.state != "withdrawn",
    "withdrawVersion": either(relation("owner"), role(REVIEWER, ADMIN)),
    "quarantineVersion": either(relation("owner"), role(REVIEWER, ADMIN)),
    # Nobody lets what they own or made out of quarantine.
    "releaseVersion": lambda call: call.has(REVIEWER) and not (call.owner or call.author),
    # What is asked of users is the owner's to say.
    "setConditions": relation("owner"),
    "addErratum": either(relation("owner"), role(REVIEWER)),
    "viewHolders": either(relation("owner"), OVERSIGHT),
    # One reviewer raises a level; nobody lowers that of their own organism.
    "setLevel": lambda call: call.has(REVIEWER) and not (call.lowering and call.owner),
    "request": asks,
    "amendRequest": lambda call: call.has(RESEARCHER) and call.requester,
    "withdrawRequest": relation("requester"),
    "viewRequest": either(relation("requester", "owner"), OVERSIGHT),
    "review": decides,
    "viewGrant": either(relation("user", "owner"), OVERSIGHT),
    "revokeGrant": either(relation("user", "owner"), role(REVIEWER, ADMIN)),
    "attestDestruction": relation("user"),
    "openSession": uses(NEEDED["openSession"], in_cell=True),
    "openLocalSession": uses(NEEDED["openLocalSession"], in_cell=True, leaves=True),
    "sample": uses(NEEDED["sample"], in_cell=True, own=relation("user")),
    "probe": uses(NEEDED["probe"], in_cell=True, own=relation("user")),
    "pull": uses(NEEDED["pull"], in_cell=False, leaves=True),
    "viewSession": either(relation("user"), OVERSIGHT),
    "watchSession": role(REVIEWER, ADMIN),
    "closeSession": relation("user"),
    "killSession": role(REVIEWER, ADMIN),
    # Only the registry itself, on what is published, in a cell with all its walls above CL1. Nobody hears what comes out.
    "rerun": lambda call: call.itself and call.published and (call.danger == 1 or call.jail),
    "proposeMotion": signs,
    # Two people are two people.
    "secondMotion": lambda call: signs(call) and not call.proposer,
    "viewMotion": either(relation("proposer"), OVERSIGHT),
    "withdrawMotion": relation("proposer"),
    "createGame": role(REVIEWER, PUBLISHER),
    # A truth that was told is everybody's. Before that, its master's and the reviewers', if they do not play.
    "viewGame": either(relation("master", "player", "revealed"), OVERSIGHT),
    "viewTruth": lambda call: call.revealed or (not call.player and (call.master or call.has(REVIEWER))),
    "joinGame": plays,
    "guess": plays,
    # Heads, proofs and one's own entries are everybody's.
    "readLedger": either(relation("own"), OVERSIGHT),
    "viewUsers": lambda call: call.has(REVIEWER, AUDITOR, ADMIN) or (call.kind == "User" and call.oneself),
    # Nobody manages their own account.
    "manageUsers": lambda call: call.has(ADMIN) and not call.oneself,
    "denyCertificate": role(ADMIN),
}
