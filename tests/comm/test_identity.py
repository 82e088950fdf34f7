"""Keys come from where the user says, others' keys are checked against them, and nothing is guessed."""

from __future__ import annotations

import pytest

from pydec.comm import identity
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, SetupError, SignatureError

KEYS = [SigningKey(bytes([n]) * 32) for n in range(3)]


@pytest.fixture
def files(tmp_path):
    for rank, key in enumerate(KEYS):
        keyfile.create(tmp_path / f"{rank}.key", key)
    (tmp_path / "peers").write_text(
        "# the three\n" + "".join(f"{key.public.hex()}  # {key}\n" for key in KEYS)
    )
    return tmp_path


def test_one_key_for_all_lets_its_holders_in(files):
    who = identity.given(str(files / "0.key"), "", "", 2)
    assert who.key == KEYS[0]
    who.admit(1, KEYS[0].public)
    with pytest.raises(SignatureError, match=r"its key .* is not this job's"):
        who.admit(1, KEYS[1].public)


def test_a_key_for_each_rank_is_checked_against_the_list(files):
    who = identity.given(str(files / "{rank}.key"), str(files / "peers"), "", 2)
    assert who.key == KEYS[2]
    who.admit(1, KEYS[1].public)
    with pytest.raises(SignatureError, match=r"is not the .* that .*peers has for rank 0"):
        who.admit(0, KEYS[1].public)
    with pytest.raises(SignatureError, match="has no key for rank 3"):
        who.admit(3, KEYS[1].public)


def test_without_a_key_a_fresh_one_is_trusted_on_first_use():
    one, other = identity.fresh(), identity.fresh()
    assert one.key != other.key
    one.admit(1, other.key.public)
    assert "trusted on first use" in one.words
    assert "not from who can change messages" in one.words


def test_a_passphrase_comes_from_the_launcher(tmp_path, monkeypatch):
    keyfile.create(tmp_path / "k", KEYS[0], "open sesame")
    monkeypatch.setenv("PHRASE", "open sesame\n")
    assert identity.given(str(tmp_path / "k"), "", "env:PHRASE", 0).key == KEYS[0]
    monkeypatch.setenv("PHRASE", "wrong")
    with pytest.raises(ConfigError, match="wrong passphrase") as caught:
        identity.given(str(tmp_path / "k"), "", "env:PHRASE", 0)
    assert "sesame" not in str(caught.value)
    with pytest.raises(ConfigError, match="env:NAME or fd:NUMBER, got 'open sesame'"):
        identity.given(str(tmp_path / "k"), "", "open sesame", 0)


def test_a_run_key_holds_for_a_day_and_for_transport_only():
    now_s = 1_000_000 * 3600.0
    mine = identity.shared(KEYS[0]).credentials(now_s)
    mine.certificate.verify(mine.chain_id, 1_000_000 + 24)
    with pytest.raises(SignatureError, match="covers epochs 999976 to 1000024, not 1000025"):
        mine.certificate.verify(mine.chain_id, 1_000_000 + 25)
    with pytest.raises(SignatureError, match="is for chain"):
        mine.certificate.verify(bytes(32), 1_000_000)
    assert mine.key != KEYS[0] != identity.shared(KEYS[0]).credentials(now_s).key


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("xyz", "line 1: expected a public key, 64 hexadecimal digits"),
        (f"{KEYS[0].public.hex()} more", "line 1: expected a public key"),
        (f"{KEYS[0].public.hex()}\n{KEYS[0].public.hex()}", "ranks 0 and 1 have one key"),
        (KEYS[1].public.hex(), "has key .* for rank 0, whose key is"),
        ("", "has key none for rank 0, whose key is"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(files, lines, error):
    (files / "peers").write_text(lines)
    with pytest.raises(ConfigError, match=error):
        identity.given(str(files / "0.key"), str(files / "peers"), "", 0)


def test_options_that_do_not_fit_together(files):
    with pytest.raises(ConfigError, match="--peers and --passphrase-from go with --key"):
        identity.given("", str(files / "peers"), "", 0)
    with pytest.raises(ConfigError, match="--peers FILE must list their public keys"):
        identity.given(str(files / "{rank}.key"), "", "", 0)
    with pytest.raises(SetupError, match="cannot be read"):
        identity.given(str(files / "0.key"), str(files / "none"), "", 0)
    (files / "0.key").chmod(0o640)
    with pytest.raises(SetupError, match="mode 0640, so others may use it"):
        identity.given(str(files / "0.key"), "", "", 0)
