"""Databases for tests, both kinds the registry runs on: a file, and a private PostgreSQL server started from its binaries.

Fixtures (a plugin: `tests/conftest.py` names this module):
- `database`: an empty, migrated database; the test runs twice, on SQLite and on PostgreSQL.
- `sqlite_database`, `postgresql_database`: the same, of one kind.
- `sqlite_url`, `postgresql_url`: the address of one, for tests that open it themselves.

A missing PostgreSQL fails the tests that need it. It never skips them: a suite that did not run proves nothing.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
from model_organisms_registry.storage.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

PATIENCE_S = 30.0
"""Tests share their machine; what they show is not how long they wait."""

_NUMBERS = itertools.count(1)


class PostgresServer:
    """A server in a folder of its own: no network, no durability, nothing left behind.

    It refuses to run as root, so root starts it as another user. The kernel ends it when this process ends, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        """Create the cluster; `start` brings it up."""
        self._folder = folder
        self._binaries = find_binaries()
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: list[str] = ["setpriv", "--pdeathsig", "INT"]
        if os.geteuid() == 0:
            user = _unprivileged()
            self._as += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
            os.chown(folder, user.pw_uid, user.pw_gid)
        create = [self._binaries / "initdb", "-D", folder / "data", "-U", "registry", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run([*self._as, *create, *_locale(self._binaries)], cwd=folder, capture_output=True, check=False)
        if done.returncode:
            pytest.fail(f"initdb failed:\n{(done.stdout + done.stderr).decode()}", pytrace=False)

    def start(self) -> None:
        """Serve, and make the template that every test's database is copied from."""
        self.serve()
        self.execute("CREATE DATABASE migrated")
        database = Database(self.url("migrated"), patience_s=PATIENCE_S)
        database.migrate()
        database.close()

    def serve(self) -> None:
        """Serve what is there; after a stop or a kill, too."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum": "off",
        }
        serve = [self._binaries / "postgres", "-D", self._folder / "data", *(f"--{key}={settings[key]}" for key in settings)]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen([*self._as, *serve], cwd=self._folder, stdout=output, stderr=output)
        self._wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and to every process of it."""
        if self._process is not None:
            for process in (psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def stop(self) -> None:
        """End it, kindly first."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=20)

    def url(self, name: str) -> str:
        """Print the address of one of its databases."""
        return f"postgresql://registry@/{name}?host={self._folder}"

    def create(self) -> str:
        """Copy the template into a new database, and print its name."""
        name = f"test_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever still holds a connection to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run a statement outside any transaction, on the server's own database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL did not start:\n{self._log.read_text()}", pytrace=False)
                time.sleep(0.05)
            else:
                return


class _UndoneError(Exception):
    pass


@contextmanager
def undone(database: Database) -> Iterator[Connection]:
    """A writing transaction of which nothing remains, so that one database serves many examples."""
    with suppress(_UndoneError), database.write() as tx:
        yield tx
        raise _UndoneError


def find_binaries() -> Path:
    """Find the folder with `initdb` and `postgres`, the newest first; a fault of the machine is a failure."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -_number(folder.parent.name))
    onpath = shutil.which("postgres")
    folders = [*found, *([Path(onpath).resolve().parent] if onpath else [])]
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.fail("PostgreSQL is not installed; run `make test`, or `apt-get install postgresql`.", pytrace=False)


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits.group()) if digits else 0


def _locale(binaries: Path) -> list[str]:
    """Order text as English does where the server can: the worst case for code that leans on the order of code points."""
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    knows_icu = _number(said.partition("(PostgreSQL) ")[2]) >= 15
    return ["--locale=C.UTF-8", *(["--locale-provider=icu", "--icu-locale=en-US"] if knows_icu else [])]


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.fail("There is no user that PostgreSQL could run as; add a user named postgres.", pytrace=False)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    folder = Path(tempfile.mkdtemp(prefix="mo-pg-"))  # pytest's own folders are closed to the user it runs as
    try:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql_server: PostgresServer) -> Iterator[str]:
    """A new, migrated database."""
    name = postgresql_server.create()
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "registry.db"
    database = Database(f"sqlite:///{file}", patience_s=PATIENCE_S)
    database.migrate()
    database.close()
    return file


@pytest.fixture
def sqlite_url(_migrated_file: Path, tmp_path: Path) -> str:
    """A new, migrated file."""
    file = tmp_path / "registry.db"
    shutil.copyfile(_migrated_file, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgresql_database(postgresql_url: str) -> Iterator[Database]:
    """An empty database on the server."""
    database = Database(postgresql_url, patience_s=PATIENCE_S)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """An empty database in a file."""
    database = Database(sqlite_url, patience_s=PATIENCE_S)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of each kind in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database, of each kind in turn."""
    opened = Database(database_url, patience_s=PATIENCE_S)
    yield opened
    opened.close()
