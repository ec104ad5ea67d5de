"""M5 and M6: pulling a large and a small organism, sealed, verified, into memory, beside transports that carry as many bytes."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from model_organisms.errors import Unavailable
from model_organisms.formats.paths import WEIGHTS

from tests.bench.measure import OURS, Goal, Row, interleaved, seconds
from tests.support.adapters import ALL_MODULES, tiny_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_organisms import Client
    from model_organisms.records import Version

    from tests.bench.peers import Peers
    from tests.bench.place import Place
    from tests.bench.rival import Rival

MB = 1e6
_WIDE = {"rank": 64, "modules": ALL_MODULES, "hidden": 2048, "kv": 512, "intermediate": 8192}
SOCKET, STREAM, ECHO, MLFLOW = "TLS socket", "gRPC stream", "gRPC echo", "MLflow"


class Puller:
    """Pulls a version again and again, and looks at every byte outside the clock."""

    def __init__(self, client: Client, version: Version, files: Mapping[str, bytes], *, marked: bool = False) -> None:
        """Keep the digests of what was published."""
        self._client, self._version, self._marked = client, version, marked
        self._digests = {path: sha256(data).digest() for path, data in files.items()}
        self.pulls = self.equal = self.receipts = 0

    def __call__(self) -> float:
        """Pull once; the seconds it took."""
        pulled = None

        def pull() -> None:
            nonlocal pulled
            pulled = self._client.organisms.pull(self._version.name, progress_bar=False)

        took = seconds(pull)
        with pulled:
            found = {path: sha256(data).digest() for path, data in pulled.files.items()}
            differ = {path for path in self._digests if found.get(path) != self._digests[path]}
            self.pulls += 1
            self.equal += found.keys() == self._digests.keys() and differ == ({WEIGHTS} if self._marked else set())
            self.receipts += self._client.audit.verify(pulled.receipt).subject == self._version.name
        return took

    def checks(self) -> dict[str, bool]:
        """What was seen of all pulls."""
        what = "only the weights differ, by their mark" if self._marked else "all bytes equal"
        return {
            f"{what} in {self.equal} of {self.pulls}": self.equal == self.pulls > 0,
            f"receipt verified in {self.receipts} of {self.pulls}": self.receipts == self.pulls,
        }


def large(place: Place, peers: Peers, *, quick: bool, rival: Rival | None = None) -> list[Row]:
    """M5: a quarter of a gigabyte, unmarked (CL1) and marked (CL2)."""
    files = tiny_bundle(layers=range(3 if quick else 24), **_WIDE)
    size = sum(map(len, files.values()))
    whole = size - size % (1 << 20)
    rosa = place.person("rosa", "researcher")
    plain = Puller(rosa, place.publish("organisms/bench-large", files), files)
    sides: dict[str, Callable[[], float]] = {
        OURS: lambda: size / MB / plain(),
        SOCKET: _speed(peers.socket(whole), whole),
        STREAM: _speed(peers.stream(whole), whole),
    }
    if rival:
        sides[MLFLOW] = _speed(rival.download({"large.bin": files[WEIGHTS]}), len(files[WEIGHTS]))
    marked = _marked(place, files)
    if marked:
        sides["marked"] = lambda: size / MB / marked()
    found = interleaved(sides, 3 if quick else 7)
    copies = found.pop("marked", None)
    what = f"pull {size / MB:.0f} MB"
    goals = (Goal(0.6, SOCKET), Goal(2.5, MLFLOW))
    rows = [Row("M5", f"{what}, unmarked (CL1)", "MB/s", found, goals, plain.checks())]
    if copies and marked:
        beside = {name: figures for name, figures in found.items() if name != OURS}
        goals = (Goal(0.5, SOCKET), Goal(2.5, MLFLOW))
        rows.append(Row("M5", f"{what}, marked (CL2)", "MB/s", {OURS: copies, **beside}, goals, marked.checks()))
    return rows


def small(place: Place, peers: Peers, *, quick: bool, rival: Rival | None = None) -> list[Row]:
    """M6: rank 1 on one module, as small as organisms get."""
    files = tiny_bundle(rank=1, layers=[21], modules=["down_proj"], hidden=576, intermediate=1536, seed=1)
    size = sum(map(len, files.values()))
    puller = Puller(place.person("rosa", "researcher"), place.publish("organisms/bench-small", files), files)
    echo = peers.echo(bytes(size))
    sides: dict[str, Callable[[], float]] = {OURS: lambda: puller() * 1e3, ECHO: lambda: seconds(echo) * 1e3}
    if rival:
        fetch = rival.download(files)
        sides[MLFLOW] = lambda: seconds(fetch) * 1e3
    found = interleaved(sides, 30 if quick else 150, warm=5)
    return [Row("M6", f"pull {size / 1e3:.1f} kB, p50", "ms", found, (Goal(3.0, at_most=True),), puller.checks())]


def _marked(place: Place, files: Mapping[str, bytes]) -> Puller | None:
    """The same organism a level higher, where copies are marked; nothing while this registry refuses to."""
    puller = Puller(
        place.person("rosa", "researcher"), place.publish("organisms/bench-marked", files, level="CL2"), files, marked=True
    )
    try:
        puller()
    except Unavailable as error:
        print(f"M5, marked: not measured. {error.message}")
        return None
    return puller


def _speed(receive: Callable[[], object], size: int) -> Callable[[], float]:
    return lambda: size / MB / seconds(receive)
