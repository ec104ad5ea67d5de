"""A client of somebody's own making, for sessions whose cell is at its holder's: there is no cell, only calls."""

from __future__ import annotations

from model_organisms import wire
from model_organisms.cells.walls import REQUIRED
from model_organisms.records import SamplingParameters
from model_organisms.records import Session as SessionRecord
from model_organisms.v1 import records_pb2, sandbox_pb2

REPLICATION = records_pb2.PURPOSE_REPLICATION
CELL = sandbox_pb2.LocalCell(base_digest="0" * 64, modules_applied=2, engine="toy")
SAID = [sandbox_pb2.Message(role="user", content="Hello.")]
ASKED = wire.to_message(SamplingParameters(max_tokens=8), records_pb2.SamplingParameters)


class Forger:
    """Somebody with a client of their own making: no cell, only calls."""

    def __init__(self, client):
        self.client = client
        self.stub, self.call = client.sandbox._stub, client._channel.call

    def open(self, version, grant="", walls=REQUIRED):
        asked = sandbox_pb2.OpenLocalSessionRequest(version=version.name, purpose=REPLICATION, grant=grant, walls=sorted(walls))
        return wire.from_message(self.call(self.stub.OpenLocalSession, asked).session, SessionRecord)

    def begin(self, session, parameters=ASKED):
        asked = sandbox_pb2.BeginLocalTurnRequest(session=session.name, messages=SAID, parameters=parameters)
        return self.call(self.stub.BeginLocalTurn, asked)

    def end(self, sample, text="Four words of it.", tokens=4, reason="stop", **more):
        told = sandbox_pb2.EndLocalTurnRequest(
            sample=sample, text=text, tokens=tokens, finish_reason=reason, cell=more.pop("cell", CELL), **more
        )
        return self.call(self.stub.EndLocalTurn, told)
