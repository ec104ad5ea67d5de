"""A registry that is down, silent, or none: told of in time, in an error that says what to look at."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.client.client import connect, login
from model_organisms.client.keys import write
from model_organisms.formats.enrolment import Ticket

from tests.support.refusals import quick, refused


@pytest.fixture
def away(world, tmp_path):
    """Rosa's client of a registry at another address."""

    def client(port, timeout_s=3.0):
        moved = replace(world.person("rosa").identity, registry=f"127.0.0.1:{port}")
        write(moved, tmp_path / "away.json")
        return connect(tmp_path / "away.json", timeout_s=timeout_s)

    return client


def test_a_registry_that_is_down_is_told_at_once(away):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        port = taken.getsockname()[1]
        with closing(away(port)) as rosa, refused(errors.RegistryUnreachable, "check the address, that it runs"):
            quick(rosa.users.me, within_s=10)
        with closing(away(port)) as rosa, refused(errors.RegistryUnreachable, "check the address"):
            list(rosa.organisms.list())
        ticket = Ticket(f"127.0.0.1:{port}", f"127.0.0.1:{port}", rosa.identity.authority.decode(), "CODE")
        with refused(errors.RegistryUnreachable, "check the address"):
            login(str(ticket))


def test_a_registry_that_says_nothing_is_given_up_in_time(away):
    told = refused(errors.DeadlineExceeded, "try again with a longer timeout")
    with socket.create_server(("127.0.0.1", 0)) as silent, closing(away(silent.getsockname()[1], 2.0)) as rosa, told:
        quick(rosa.users.me, within_s=5)


def test_something_that_is_no_registry_is_told_of(away):
    def answer(server):
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with closing(away(server.getsockname()[1])) as rosa, refused(errors.RegistryUnreachable, "check the address"):
            rosa.users.me()
        server.shutdown(socket.SHUT_RDWR)
