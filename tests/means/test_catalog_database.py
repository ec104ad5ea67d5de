"""Transactions, migrations and copies of the database, on both kinds: what is promised holds when things go wrong, too."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import AlreadyExists, ConfigurationInvalid, Conflict, Internal, InvalidArgument, Unavailable
from model_organisms_registry.ledger import schema as ledger_schema
from model_organisms_registry.storage import migrations, schema
from model_organisms_registry.storage.catalog import identity, organisms
from model_organisms_registry.storage.codecs import Instant, dump_facts, dump_files, load_facts, load_files
from model_organisms_registry.storage.database import HEAD, Database
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.engine import make_url

from tests.support import catalog as make

CRASH = """
import os, signal, sys
from tests.support import catalog as make
from model_organisms_registry.storage.catalog import identity
from model_organisms_registry.storage.database import Database

with Database(sys.argv[1]).write() as tx:
    identity.add_user(tx, make.user("kept"))
with Database(sys.argv[1]).write() as tx:
    identity.add_user(tx, make.user("half"))
    kept = make.user("kept")
    identity.change_user(tx, make.user("kept", state=make.UserState.SUSPENDED), expected=kept)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names_of(database: Database) -> list[str]:
    with database.read() as tx:
        return [user.name for user in identity.users(tx).items]


def test_a_transaction_is_kept_whole_or_not_at_all(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_user(tx, make.user("bob"))
    with pytest.raises(AlreadyExists), database.write() as tx:
        make.populate(tx, people=("cleo", "ada"))
    assert names_of(database) == ["users/ada", "users/bob"]


def test_a_process_killed_in_a_transaction_leaves_nothing_of_it(database, database_url):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CRASH, database_url], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with database.write() as tx:  # the dead writer's lock is gone as well
        assert identity.user(tx, "users/kept").state is make.UserState.ACTIVE
    assert names_of(database) == ["users/kept"]


def test_reading_sees_one_moment_and_writes_nothing(database):
    with database.read() as tx:
        assert identity.users(tx).items == ()
        with database.write() as other:
            identity.add_user(other, make.user("ada"))
        assert identity.users(tx).items == ()
    with pytest.raises(Unavailable, match="nothing was done"), database.read() as tx:
        identity.add_user(tx, make.user("bob"))
    assert names_of(database) == ["users/ada"]


def test_writers_queue_and_the_impatient_are_told(sqlite_url):
    database = Database(sqlite_url, patience_s=0.2)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write() as tx:
            identity.add_user(tx, make.user("ada"))
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(10)
    with pytest.raises(Unavailable, match="busy"), database.write():
        pass
    leave.set()
    holder.join()
    with database.write() as tx:
        identity.add_user(tx, make.user("bob"))
    assert names_of(database) == ["users/ada", "users/bob"]
    database.close()


def test_a_second_process_that_holds_the_lock_is_waited_for_then_reported(database_url):
    mine, other = Database(database_url, patience_s=0.2), Database(database_url)
    with other.write() as tx:
        identity.add_user(tx, make.user("ada"))
        with pytest.raises(Unavailable, match="in the way; try again"), mine.write() as late:
            identity.add_user(late, make.user("ada"))
    mine.close()
    other.close()


def test_what_refers_to_nothing_is_a_conflict(database):
    with pytest.raises(Conflict), database.write() as tx:
        identity.add_enrolment(tx, "00", "users/nobody", make.LATER)


@pytest.mark.parametrize("bad", ["nul\0", "\ud800half"])
def test_text_that_one_database_cannot_keep_is_refused_by_both(database, bad):
    with pytest.raises(InvalidArgument, match="NUL or half"), database.write() as tx:
        identity.add_user(tx, make.user("ada", display_name=bad))
    assert names_of(database) == []


def test_a_time_without_zone_is_refused(database):
    with pytest.raises(InvalidArgument, match="time zone"), database.write() as tx:
        identity.add_user(tx, make.user("ada", create_time=datetime(2026, 1, 1)))  # noqa: DTZ001 - that is the point


def test_a_number_beyond_the_column_is_refused(postgresql_database):
    with pytest.raises(InvalidArgument, match="too large"), postgresql_database.write() as tx:
        tx.execute(text("INSERT INTO ledger_head VALUES (1, 99999999999999999999, '', '')"))


def test_faults_of_our_own_sql_stay_visible(database):
    with pytest.raises(Exception, match="syntax") as caught, database.write() as tx:
        tx.execute(text("SELEKT 1"))
    assert not isinstance(caught.value, Internal)


def test_a_database_that_was_never_migrated_says_so(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(Unavailable, match="migrate"), database.read() as tx:
        identity.users(tx)
    database.close()


def test_no_server_is_unavailable_and_no_password_is_shown(tmp_path):
    database = Database(f"postgresql://mo:hunter2@/registry?host={tmp_path}", patience_s=0.5)
    with pytest.raises(Unavailable, match="nothing was done") as caught, database.read():
        pass
    assert "hunter2" not in str(caught.value)


def test_a_connection_cut_in_a_transaction_is_unavailable_and_the_next_works(postgresql_database):
    def cut() -> None:
        with postgresql_database.write() as tx:
            identity.add_user(tx, make.user("ada"))
            mine = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with postgresql_database.write() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": mine})
            identity.add_user(tx, make.user("bob"))

    with pytest.raises(Unavailable):
        cut()
    assert names_of(postgresql_database) == []


def test_a_full_disk_is_unavailable_and_the_next_write_works(sqlite_database):
    def fill(pages: int) -> None:
        with sqlite_database.write() as tx:
            tx.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with sqlite_database.read() as tx:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
    fill(pages)
    with pytest.raises(Unavailable, match="full"), sqlite_database.write() as tx:
        tx.exec_driver_sql("INSERT INTO ledger_pending (body) VALUES (zeroblob(10000000))")
    assert names_of(sqlite_database) == []
    fill(pages + 1000)
    with sqlite_database.write() as tx:
        identity.add_user(tx, make.user("ada"))
    assert names_of(sqlite_database) == ["users/ada"]


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://host/x", "sqlite:////x.db?mode=ro"])
def test_addresses_that_cannot_be_durable_are_refused(url):
    with pytest.raises(ConfigurationInvalid):
        Database(url)


def test_a_file_in_no_folder_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="cannot be opened"):
        Database(f"sqlite:///{tmp_path}/missing/registry.db")


def test_sqlite_is_durable_private_and_checks_references(sqlite_database):
    with sqlite_database.write() as tx:
        asked = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        path = Path(tx.exec_driver_sql("PRAGMA database_list").one()[2])
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    fresh = path.with_name("fresh.db")
    Database(f"sqlite:///{fresh}").close()
    assert fresh.stat().st_mode & 0o777 == 0o600


def test_acknowledged_means_durable_on_postgresql_too(postgresql_server, postgresql_url):
    postgresql_server.execute(f"ALTER DATABASE {make_url(postgresql_url).database} SET synchronous_commit = off")
    database = Database(postgresql_url)
    with database.write() as tx:
        assert tx.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
    database.close()


def spelled_otherwise(context, _in_database, _in_code, is_type, ought_type) -> bool:
    """Compare types as SQL spells them, so that a collation counts."""
    return is_type.compile(context.dialect) != ought_type.compile(context.dialect)


def test_migrations_and_tables_agree(database):
    assert ledger_schema.entries.metadata is schema.metadata
    with database.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": spelled_otherwise, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == HEAD == migrations.head()


def test_migrations_make_the_same_checks_as_the_tables(sqlite_database, tmp_path):
    plain = create_engine(f"sqlite:///{tmp_path}/plain.db")  # autogenerate does not compare CHECKs and index conditions
    schema.metadata.create_all(plain)

    def described(tx) -> dict[str, object]:
        looked = inspect(tx)
        return {
            table: (
                sorted((check["name"], check["sqltext"]) for check in looked.get_check_constraints(table)),
                sorted((index["name"], str(index["dialect_options"].get("sqlite_where"))) for index in looked.get_indexes(table)),
                [(column["name"], str(column["type"]), column["nullable"]) for column in looked.get_columns(table)],
            )
            for table in schema.metadata.tables
        }

    with sqlite_database.read() as migrated, plain.connect() as created:
        assert described(migrated) == described(created)
    plain.dispose()


def test_a_version_from_before_learns_its_co_authors_from_its_provenance(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/old.db")
    stated = {"predicate": {"co_authors": ["carl", "users/ann", "Jane Doe"]}}
    envelope = json.dumps({"payload": base64.b64encode(json.dumps(stated).encode()).decode()}).encode()
    with database.write() as tx:
        command.upgrade(migrations.configuration(tx), "0006")
        tx.execute(text("INSERT INTO users VALUES ('users/ada', '', '', '[]', 'active', 0, x'', x'', NULL)"))
        tx.execute(text("INSERT INTO organisms VALUES ('organisms/o', '', '', 'users/ada', 1, '', '[]', 0, 0, 2)"))
        row = "INSERT INTO versions VALUES ('organisms/o/versions/{0}', 'organisms/o', {0}, '{0}', 'published', 1, 'users/ada', "
        row += "x'', '[]', '[]', '[]', :envelope, 0, 0, '')"
        tx.execute(text(row.format(1)), {"envelope": envelope})
        tx.execute(text(row.format(2)), {"envelope": b"{}"})
    database.migrate()
    with database.read() as tx:
        known = [organisms.version(tx, f"organisms/o/versions/{number}").co_authors for number in (1, 2)]
    assert known == [("users/carl", "users/ann"), ()]
    database.close()


def test_migrating_again_changes_nothing_and_needs_no_alembic(sqlite_url):
    script = (
        "import sys; from model_organisms_registry.storage.database import Database\n"
        "Database(sys.argv[1]).migrate(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, sqlite_url], check=True)


def test_two_processes_may_migrate_at_once(postgresql_server):
    postgresql_server.execute("CREATE DATABASE raced")
    faults = []

    def migrate() -> None:
        database = Database(postgresql_server.url("raced"), patience_s=30)
        try:
            database.migrate()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must show it
            faults.append(error)
        database.close()

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    postgresql_server.drop("raced")
    assert faults == []


def test_a_newer_schema_is_not_touched(database):
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="9999"):
        database.migrate()


def test_a_migration_that_fails_leaves_the_old_schema(sqlite_url):
    path = make_url(sqlite_url).database
    with sqlite3.connect(path) as raw:
        raw.executescript("DROP TABLE ledger_head; DROP TABLE ledger_entries; UPDATE alembic_version SET version_num = '0004';")
    raw.close()
    database = Database(sqlite_url)  # ledger_pending is in the way, so the last step cannot be taken
    with pytest.raises(Unavailable):
        database.migrate()
    with database.read() as tx:
        assert tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0004"
        assert not inspect(tx).has_table("ledger_entries")
    database.close()


def test_a_backup_is_a_whole_database_taken_while_writing(sqlite_database, tmp_path):
    stop, written = threading.Event(), []

    def keep_writing() -> None:
        while not stop.is_set():
            with sqlite_database.write() as tx:
                identity.add_user(tx, make.user(f"a{len(written):04}"))
                identity.add_user(tx, make.user(f"b{len(written):04}"))
            written.append(1)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    while len(written) < 20:
        pass
    at_least = len(written)
    sqlite_database.backup(tmp_path / "copy.db")
    stop.set()
    writer.join()
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy.db"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    copy = Database(f"sqlite:///{tmp_path}/copy.db")
    with copy.read() as tx:
        assert tx.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        count = tx.execute(select(func.count()).select_from(schema.users)).scalar_one()
    copy.close()
    assert count % 2 == 0
    assert count >= 2 * at_least


def test_a_backup_replaces_nothing_and_leaves_no_half(sqlite_database, postgresql_database, tmp_path):
    there = tmp_path / "there"
    there.write_text("mine")
    with pytest.raises(AlreadyExists):
        sqlite_database.backup(there)
    assert there.read_text() == "mine"
    with pytest.raises(Unavailable, match="another folder"):
        sqlite_database.backup(tmp_path / "missing" / "copy.db")
    with pytest.raises(ConfigurationInvalid, match="pg_dump"):
        postgresql_database.backup(tmp_path / "copy.db")
    assert {file.name for file in tmp_path.iterdir()} == {"registry.db", "registry.db-shm", "registry.db-wal", "there"}


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=-7, minutes=-30)))))
def test_times_come_back_to_the_microsecond(moment):
    kept = Instant().process_bind_param(moment, None)
    assert isinstance(kept, int)
    back = Instant().process_result_value(kept, None)
    assert back == moment
    assert back.utcoffset() == timedelta(0)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.integers(0, 2**53))
def test_facts_and_files_come_back_as_they_were(number, word, size):
    version = make.version()
    module = make.ModuleFacts(word, size, number, number, size, size)
    facts = (make.AdapterFacts(word, "BF16", size, (1, 2), (), (word, ""), number, False, (module,) * 3),) * 2
    files = (make.BundleFile(word, size, word, make.FileKind.DATA_CARD), *version.files)
    assert load_facts(dump_facts(facts)) == facts
    assert load_files(dump_files(files)) == files


def test_a_fact_that_is_no_number_is_refused():
    facts = make.version().facts[0]
    bad = make.AdapterFacts(".", "F32", 1, (), (), (), float("nan"), False, facts.modules)
    with pytest.raises(InvalidArgument, match="finite"):
        dump_facts((bad,))
