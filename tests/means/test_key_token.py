"""Keys in a token: what is made there cannot leave it, and a token that is away says nothing of what is gone."""

from __future__ import annotations

import threading
from dataclasses import replace

import pkcs11
import pytest
from model_organisms.errors import ConfigurationInvalid, NotFound, Unavailable
from model_organisms_registry.storage import key_token
from model_organisms_registry.storage.key_token import TokenKeys
from model_organisms_registry.storage.keys import KeyState
from pkcs11 import Attribute, KeyType, ObjectClass

from tests.support.keepers import new_token, secret

KEY = bytes(range(32))
MARK = {Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: "model-organisms", Attribute.TOKEN: True, Attribute.VALUE: b""}


def session(hsm):
    """What another program of the token's owner would see."""
    return key_token._lines[hsm.library, hsm.token].session


def secrets_of(hsm, label):
    return list(session(hsm).get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))


def test_a_key_never_leaves_the_token(hsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    (key,) = secrets_of(hsm, "a")
    expected = {Attribute.SENSITIVE: True, Attribute.ALWAYS_SENSITIVE: True, Attribute.EXTRACTABLE: False}
    expected |= {Attribute.NEVER_EXTRACTABLE: True, Attribute.PRIVATE: True, Attribute.MODIFIABLE: False, Attribute.WRAP: False}
    assert {name: key[name] for name in expected} == expected
    with pytest.raises(pkcs11.PKCS11Error):
        key[Attribute.VALUE]
    with pytest.raises(pkcs11.PKCS11Error):
        key[Attribute.EXTRACTABLE] = True
    keys.destroy("a")
    assert secrets_of(hsm, "a") == []


def test_a_key_that_could_be_read_out_is_not_used(hsm):
    keys = TokenKeys(hsm)
    planted = {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False, Attribute.LABEL: "a", Attribute.ID: bytes(16)}
    session(hsm).generate_key(KeyType.AES, 256, store=True, template=planted)
    assert keys.state("a") is KeyState.MISSING
    with pytest.raises(NotFound):
        keys.wrap("a", KEY, b"")


def test_two_keys_of_one_label_lose_nothing_and_are_destroyed_together(hsm):
    """As two registries leave them that made one key at the same moment."""
    keys = TokenKeys(hsm)
    keys.create("a")
    first = keys.wrap("a", KEY, b"")
    made = {**key_token._MADE, Attribute.LABEL: "a", Attribute.ID: bytes(16)}
    session(hsm).generate_key(KeyType.AES, 256, store=True, template=made)
    key_token._lines[hsm.library, hsm.token].found.clear()  # another registry's, which looks for itself
    second = keys.wrap("a", KEY, b"")
    assert first[1:17] != second[1:17] == bytes(16)
    assert [keys.unwrap("a", wrapped, b"") for wrapped in (first, second)] == [KEY, KEY]
    keys.destroy("a")
    assert secrets_of(hsm, "a") == []


def test_a_destruction_that_a_crash_cut_off_is_finished_at_the_next_start(hsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    for label in ("destroying/a", "destroyed/a"):
        session(hsm).create_object({**MARK, Attribute.LABEL: label})
    with pytest.raises(NotFound, match="destroyed"):
        keys.wrap("a", KEY, b"")
    assert len(secrets_of(hsm, "a")) == 1
    TokenKeys(hsm).finish()
    assert secrets_of(hsm, "a") == []
    assert keys.state("a") is KeyState.DESTROYED


def test_a_library_that_starts_anew_is_logged_in_to_again(hsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    pkcs11.lib(hsm.library).reinitialize()  # as a driver does after its cable was pulled: no session lives
    assert keys.unwrap("a", wrapped, b"") == KEY
    pkcs11.lib(hsm.library).finalize()
    assert keys.unwrap("a", wrapped, b"") == KEY


def test_a_token_that_is_away_is_unavailable_and_works_again_when_it_is_back(hsm, softhsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    (softhsm / "tokens").rename(softhsm / "pulled")
    (softhsm / "tokens").mkdir()
    try:
        pkcs11.lib(hsm.library).reinitialize()
        for call in (lambda: keys.state("a"), lambda: keys.unwrap("a", wrapped, b""), lambda: keys.create("b")):
            with pytest.raises(Unavailable, match="There is no token"):
                call()
    finally:
        (softhsm / "tokens").rmdir()
        (softhsm / "pulled").rename(softhsm / "tokens")
    assert keys.unwrap("a", wrapped, b"") == KEY


def test_a_token_whose_files_vanish_in_mid_session_does_not_make_keys_missing(hsm, softhsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    (softhsm / "tokens").rename(softhsm / "pulled")
    (softhsm / "tokens").mkdir()
    try:
        with pytest.raises(Unavailable):
            keys.state("a")
    finally:
        (softhsm / "tokens").rmdir()
        (softhsm / "pulled").rename(softhsm / "tokens")
    assert keys.state("a") is KeyState.LIVE


def test_a_wrong_pin_is_tried_once_and_the_token_does_not_lock(hsm, tmp_path):
    other = new_token(tmp_path)
    wrong = replace(other, pin_file=str(secret(tmp_path / "wrong", "not-the-pin")))
    with pytest.raises(ConfigurationInvalid, match="not tried again") as told:
        TokenKeys(wrong)
    assert "not-the-pin" not in str(told.value)
    keys = TokenKeys(other)
    key_token._lines.clear()
    secret(tmp_path / "pin", "not-the-pin")
    pkcs11.lib(hsm.library).reinitialize()
    for _ in range(30):
        with pytest.raises(ConfigurationInvalid, match="not tried again"):
            keys.state("a")
    secret(tmp_path / "pin", "4711-for-tests")
    assert TokenKeys(other).state("a") is KeyState.MISSING


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_pin_file_open_to_others_is_refused(hsm, tmp_path, mode):
    file = secret(tmp_path / "mine", "4711-for-tests")
    file.chmod(mode)
    key_token._lines.clear()
    with pytest.raises(ConfigurationInvalid, match="open to others"):
        TokenKeys(replace(hsm, pin_file=str(file)))


def test_a_pin_may_come_from_a_variable(hsm, monkeypatch):
    key_token._lines.clear()
    settings = replace(hsm, pin_file="", pin_env="HSM_PIN")
    with pytest.raises(ConfigurationInvalid, match="HSM_PIN"):
        TokenKeys(settings)
    monkeypatch.setenv("HSM_PIN", "4711-for-tests")
    TokenKeys(settings).create("a")


def test_what_is_no_library_and_what_is_no_token_are_told_apart(hsm, tmp_path):
    with pytest.raises(ConfigurationInvalid, match="no PKCS#11 library"):
        TokenKeys(replace(hsm, library=str(secret(tmp_path / "not.so", "not a library"))))
    with pytest.raises(Unavailable, match="no token 'absent'"):
        TokenKeys(replace(hsm, token="absent"))


def test_a_key_that_another_registry_destroyed_is_refused_though_it_was_found_before(hsm):
    keys = TokenKeys(hsm)
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    session(hsm).create_object({**MARK, Attribute.LABEL: "destroyed/a"})
    for key in secrets_of(hsm, "a"):
        key.destroy()
    with pytest.raises(NotFound, match="destroyed"):
        keys.unwrap("a", wrapped, b"")
    with pytest.raises(NotFound, match="destroyed"):
        keys.wrap("a", KEY, b"")


def test_a_call_that_hangs_in_the_token_does_not_hang_the_others(hsm, monkeypatch):
    keys = TokenKeys(hsm)
    monkeypatch.setattr(key_token, "_PATIENCE_S", 0.05)
    done = threading.Event()

    def hang(_line):
        done.wait(30)

    hanging = threading.Thread(target=keys._do, args=(hang,))
    hanging.start()
    try:
        with pytest.raises(Unavailable, match="an earlier call"):
            keys.state("a")
    finally:
        done.set()
        hanging.join()
    assert keys.state("a") is KeyState.MISSING
