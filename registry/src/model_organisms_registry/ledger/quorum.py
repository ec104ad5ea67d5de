"""Asks witnesses to cosign this ledger's checkpoints (C2SP tlog-witness), beside the sequencer and never in its way.

- A head counts as witnessed when enough different witnesses have cosigned it; a wrong answer counts as none.
- Nobody waits for it but those who say so (`covering`): of them the next round is for all, and it begins at once.
- A quiet ledger is cosigned again and again, so that the newest cosignature says how long ago the witnesses were there.

A witness that has seen another history says so (409, 422). It may lie, so it stops nothing but what needs its cosignature; it is
told to the operator as loudly as can be.
"""

from __future__ import annotations

import http.client
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from model_organisms.errors import ConfigurationInvalid, ModelOrganismsError, Unavailable, VerificationFailed
from model_organisms.formats import merkle
from model_organisms.formats import witness as wire
from model_organisms.formats.note import COSIGNATURE, Note, VerifierKey, parse, parse_vkey

from model_organisms_registry.ledger.history import View
from model_organisms_registry.ledger.rows import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_organisms.formats.note import SignatureLine

_LOG = logging.getLogger(__name__)
_MOST_ANSWER = 64 * 1024
_SKEW_S = 60
"""How far a witness's clock may be from ours."""
_PAUSE_S = 0.25
"""Shortest time between two rounds, so that those who come together share one."""

_LONGEST_PAUSE_S = 4.0
"""Between rounds while too few cosign."""

_GRACE_S = 0.1


@dataclass(frozen=True, slots=True)
class Reply:
    """What a witness sent back."""

    status: int
    body: bytes
    kind: str


class Peer:
    """One witness, as this ledger knows it. Only one question at a time is under way.

    Args:
        key: Its verifier key, of type 0x04.
        url: Its submission prefix.
        timeout_s: Longest wait for its whole answer.
    """

    def __init__(self, key: VerifierKey, url: str, *, timeout_s: float) -> None:
        """Read the address; nothing is sent."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationInvalid(f"'{url}' is no address of a witness; write https://witness.example.org.")
        self.key = key
        self.name = key.name
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + wire.PATH
        self._timeout_s = timeout_s
        self._known = 0
        """Size of the last head it cosigned, as far as we know."""
        self.busy = threading.Lock()

    def cosign(self, view: View) -> SignatureLine:
        """Have a head cosigned.

        Raises:
            Unavailable: It did not answer in time, or not now.
            VerificationFailed: It answered, and what it said is no cosignature; or it knows another history.
        """
        size = view.head.size
        until = time.monotonic() + self._timeout_s
        reply = self._asked(view, until)
        if reply.status == HTTPStatus.CONFLICT and reply.kind == wire.SIZE_TYPE:
            has = wire.parse_size(reply.body)
            if has > size or has == self._known:
                msg = f"{self.name} has cosigned {has} entries of this ledger and will not cosign these {size}: it knows another"
                raise VerificationFailed(f"{msg} history, or this one is an old copy.")
            self._known = has
            reply = self._asked(view, until)
        if reply.status != HTTPStatus.OK:
            what = f"{self.name} will not cosign {size} entries (HTTP {reply.status})"
            told = VerificationFailed if reply.status in {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY} else Unavailable
            raise told(f"{what}; ask its operator why.")
        cosigned, at = wire.accept(view.head.note, reply.body, self.key)
        if abs(time.time() - at) > _SKEW_S:
            raise VerificationFailed(f"{self.name} has cosigned with a time that is not now; check its clock and this one's.")
        self._known = size
        return parse(cosigned).lines[-1]

    def _asked(self, view: View, until: float) -> Reply:
        proof = merkle.consistency(min(self._known, view.head.size), view.head.size, view.tree.hash_at)
        body = wire.print_submission(wire.Submission(min(self._known, view.head.size), proof, view.head.note))
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=max(0.001, until - time.monotonic()))
        try:
            connection.request("POST", self._path, body, {"Content-Type": "text/plain; charset=utf-8"})
            response = connection.getresponse()  # redirects are not followed: the address was configured
            answer = b""
            while (part := response.read1(4096)) and len(answer) <= _MOST_ANSWER and time.monotonic() < until:
                answer += part
            if part:
                raise Unavailable(f"{self.name} answers without an end.")
            return Reply(response.status, answer, response.headers.get_content_type())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.name} does not answer ({type(error).__name__}); ask its operator.") from error
        finally:
            connection.close()


class Quorum:
    """The witnesses of one ledger, and the newest head that enough of them have cosigned.

    Args:
        witnesses: Verifier key to address.
        needed: How many must cosign; 0 asks none, and nothing counts as witnessed.
        timeout_s: Longest wait for one of them.
        lag_s: How long a cosigned head speaks for the ledger.
        newest: The newest published head; nothing while there is none.
        publish: Where a note with its cosignatures goes.

    Raises:
        ConfigurationInvalid: An address or key that is none, or fewer witnesses than needed.
    """

    def __init__(
        self,
        witnesses: Mapping[str, str],
        *,
        needed: int,
        timeout_s: float,
        lag_s: float,
        newest: Callable[[], View | None],
        publish: Callable[[bytes], None],
    ) -> None:
        """Read the keys; nothing is asked before `start`."""
        keys = {parse_vkey(text): url for text, url in witnesses.items()}
        alone = min(len({key.name for key in keys}), len({key.public for key in keys}))
        if any(key.kind != COSIGNATURE for key in keys) or alone < len(witnesses):
            raise ConfigurationInvalid("Each witness has a name and a key of type 4 of its own; ask each for its verifier key.")
        if not 0 <= needed <= len(keys):
            raise ConfigurationInvalid(f"{needed} witnesses must cosign and {len(keys)} are known; add more, or ask for fewer.")
        self._peers = [Peer(key, url, timeout_s=timeout_s) for key, url in keys.items()] if needed else []
        self._needed = needed
        self._timeout_s = timeout_s
        self._lag_s = lag_s
        self._newest = newest
        self._publish = publish
        self._changed = threading.Condition()
        self._covered: View | None = None
        self._covered_at = float("-inf")
        self._wanted: list[int] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        self._askers: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Begin to ask."""
        if self._peers:
            self._askers = ThreadPoolExecutor(len(self._peers), thread_name_prefix="witness")
            self._thread = threading.Thread(target=self._run, name="ledger-witnesses", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ask no more; harmless the second time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._askers is not None:
            self._thread.join(self._timeout_s + 1.0)
            self._askers.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    @property
    def stands(self) -> bool:
        """Whether enough witnesses have cosigned a head that was the newest no longer ago than the lag."""
        return time.monotonic() - self._covered_at <= self._lag_s

    def covering(self, index: int, *, timeout_s: float) -> View | None:
        """Wait until a head over entry `index` is cosigned by enough; nothing if the time runs out."""
        with self._changed:
            self._wanted.append(index)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self._covers(index), timeout_s)
            self._wanted.remove(index)
            return self._covered if self._covers(index) else None

    def _covers(self, index: int) -> bool:
        return self._covered is not None and self._covered.head.size > index

    def _run(self) -> None:
        every, pause = self._lag_s / 4, _PAUSE_S
        while True:
            begun = time.monotonic()
            try:
                pause = every if self._round() else min(2 * pause, _LONGEST_PAUSE_S)
            except Exception:  # noqa: BLE001 - whatever it is, nothing new counts as witnessed, and it is tried again
                _LOG.exception("the witnesses could not be asked")
            with self._changed:
                self._changed.wait_for(lambda: self._closing, max(0.0, begun + _PAUSE_S - time.monotonic()))
                self._changed.wait_for(lambda: self._closing or not all(map(self._covers, self._wanted)), pause)
                if self._closing:
                    return

    def _round(self) -> bool:
        """Ask every witness for the newest head, until the time is over; once enough have answered the others get a moment."""
        view = self._newest()
        if view is None or self._askers is None:
            return False
        begun = time.monotonic()
        asked = {self._askers.submit(self._ask, peer, view): peer for peer in self._peers if not peer.busy.locked()}
        lines: list[SignatureLine] = []
        while asked:
            left = begun + self._timeout_s - time.monotonic()
            done, _ = wait(asked, max(0.0, min(left, _GRACE_S) if len(lines) >= self._needed else left), "FIRST_COMPLETED")
            if not done:
                break
            for one in done:
                del asked[one]
                line = one.result()
                if line is not None:
                    lines.append(line)
                    self._count(view, lines, begun)
        if len(lines) < self._needed:
            _LOG.error("only %d of %d witnesses have cosigned %d entries", len(lines), self._needed, view.head.size)
        return len(lines) >= self._needed

    def _ask(self, peer: Peer, view: View) -> SignatureLine | None:
        with peer.busy:
            try:
                return peer.cosign(view)
            except VerificationFailed as error:
                _LOG.critical("%s", error.message)
            except ModelOrganismsError as error:
                _LOG.warning("%s", error.message)
            return None

    def _count(self, view: View, lines: list[SignatureLine], begun: float) -> None:
        """Publish what has been cosigned so far, once it is enough, and let those go who waited for it."""
        if len(lines) < self._needed:
            return
        signed = parse(view.head.note)
        note = bytes(Note(signed.text, (*signed.lines, *lines)))
        try:
            self._publish(note)
        except ModelOrganismsError:
            _LOG.exception("the cosigned checkpoint could not be published")
            return
        with self._changed:
            if self._covered is None or view.head.size >= self._covered.head.size:
                self._covered = View(Head(view.head.size, view.head.root, note), view.tree)
                self._covered_at = begun
            self._changed.notify_all()
