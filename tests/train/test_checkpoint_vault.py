"""Sealed checkpoints: the same bits go on, with any rank's key and no other, and no byte can be changed."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import pytest
import torch

from pydec.crypto.hashing import file_root
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import OVERHEAD_BYTES
from pydec.errors import ConfigError, SetupError
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.checkpoint_layout import Layout
from pydec.train.checkpoint_vault import PLAIN_BYTES, Vault, holders, open_model, seal_model, sealed_bytes
from pydec.train.rundir import RunDir

KEYS = [SigningKey(bytes([n + 1]) * 32) for n in range(4)]
BODY = {"members": [0, 1], "state": {"loss": 0.123456789}}
MANY = 3 * PLAIN_BYTES // 4 + 1000


def vaults(*keys, drawn_for=None):
    """Vaults that seal with one key, as the ranks of a start come to it."""
    made = [Vault(key) for key in keys]
    entry = made[0].draw([key.public for key in drawn_for or keys])
    signatures = {vault.identity.public: vault.sign(entry) for vault in made}
    for vault in made:
        vault.use(entry, signatures)
    return made


def example():
    drawn = torch.randn(MANY, generator=torch.Generator().manual_seed(1))
    return {"weight": drawn, "half": torch.arange(7).to(torch.bfloat16), "count": torch.tensor(9)}


@pytest.fixture
def stores(tmp_path):
    """Of two ranks, on one disk."""
    return [Store(RunDir(tmp_path / "run"), vault) for vault in vaults(*KEYS[:2])]


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def rewrite(store, change, step=4, rank=0):
    """Change a manifest and put its digest right, as whoever can write the disk can."""
    manifest = store.manifest(step, rank)
    change(manifest)
    path = store.path(step, rank, "json")
    path.write_text(json.dumps({**manifest, "digest": digest_of(manifest)}))


def test_what_was_sealed_comes_out_for_every_rank(stores, tmp_path):
    layout = Layout(example())
    buffer = layout.buffer()
    layout.fill(buffer, example())
    stores[0].write_buffer(4, 0, buffer, BODY)
    stores[1].write_tensors(4, 1, example(), BODY)
    for store in stores:
        for rank in range(2):
            manifest = store.verify(4, rank)
            assert manifest["tensors"]["bytes"] == sealed_bytes(layout.nbytes) > layout.nbytes
            assert store.path(4, rank).stat().st_size == sealed_bytes(layout.nbytes)
            assert same(store.tensors(4, rank), example())
            assert store.opened(4, rank, manifest)["state"] == BODY["state"]
            assert b"".join(bytes(piece) for piece in store.clear(4, rank)) == bytes(buffer.numpy())
    assert holders(manifest["sealed"]["key"]) == sorted(key.public.hex() for key in KEYS[:2])


def test_nothing_of_the_state_is_on_the_disk(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    content = b"".join(path.read_bytes() for path in stores[0].path(4, 0).parent.iterdir())
    values = example()["weight"].numpy().tobytes()
    assert not any(values[at : at + 16] in content for at in range(0, 1 << 11, 16))
    for word in (b"weight", b"bfloat16", b"BF16", b"0.123456789"):
        assert word not in content
    plain = Store(RunDir(stores[0].directory.path.with_name("plain")))
    plain.write_tensors(4, 0, example(), BODY)
    content = b"".join(path.read_bytes() for path in plain.path(4, 0).parent.iterdir())
    assert all(word in content for word in (b"weight", b"BF16", b"0.123456789", values[:16]))


def test_the_same_state_never_looks_the_same_twice(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    first = stores[0].path(4, 0).read_bytes()
    stores[0].write_tensors(4, 0, example(), BODY)
    again = stores[0].path(4, 0).read_bytes()
    assert sum(a == b for a, b in zip(first[:4096], again[:4096], strict=True)) < 200  # 16 are expected


def test_other_keys_do_not_open_it_and_the_error_says_whose_do(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    other = Store(stores[0].directory, Vault(KEYS[3]))
    other.verify(4, 0)
    words = f"opens for identity keys .*{KEYS[0].public.hex()[:16]}.*this is {KEYS[3].public.hex()[:16]}"
    with pytest.raises(ConfigError, match=words):
        other.tensors(4, 0)
    with pytest.raises(ConfigError, match=words):
        other.opened(4, 0, other.manifest(4, 0))
    with pytest.raises(ConfigError, match="sealed; go on with --seal-checkpoints"):
        Store(stores[0].directory).tensors(4, 0)


def test_who_is_no_rank_any_more_opens_nothing_that_a_later_start_wrote(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    (later,) = vaults(KEYS[0])
    Store(stores[0].directory, later).write_tensors(8, 0, example(), BODY)
    left = Store(stores[0].directory, Vault(KEYS[1]))
    assert same(left.tensors(4, 0), example())
    with pytest.raises(ConfigError, match=r"step-8.* is sealed"):
        left.tensors(8, 0)
    again = Store(stores[0].directory, Vault(KEYS[0]))
    assert same(again.tensors(4, 0), example())
    assert same(again.tensors(8, 0), example())


def tampered(store, content):
    """Whether changed bytes are found: by their digest, and by the seal, if the digests are put right."""
    path = store.path(4, 0)
    path.write_bytes(content)
    with pytest.raises(SetupError, match="is damaged"):
        store.verify(4, 0)
    root = file_root(path).hex()
    rewrite(store, lambda manifest: manifest["tensors"].update(bytes=len(content), blake3=root))
    store.verify(4, 0)
    with pytest.raises(SetupError, match=f"{path} was tampered with"):
        store.tensors(4, 0)
    with pytest.raises(SetupError, match=f"{path} was tampered with"):
        list(store.clear(4, 0))


@pytest.mark.parametrize("at", [0, 20, 40, OVERHEAD_BYTES, PLAIN_BYTES, PLAIN_BYTES + OVERHEAD_BYTES, -1])
def test_changed_bytes_are_found(stores, at):
    stores[0].write_tensors(4, 0, example(), BODY)
    changed = bytearray(stores[0].path(4, 0).read_bytes())
    changed[at] ^= 1
    tampered(stores[0], bytes(changed))


@pytest.mark.parametrize("change", ["cut", "shorter", "longer", "swapped", "of another write", "empty"])
def test_chunks_that_are_missing_or_in_another_place_are_found(stores, change):
    store, chunk = stores[0], PLAIN_BYTES + OVERHEAD_BYTES
    store.write_tensors(4, 0, example(), BODY)
    other = store.path(4, 0).read_bytes()
    store.write_tensors(4, 0, example(), BODY)
    content = store.path(4, 0).read_bytes()
    assert len(content) > 2 * chunk
    tampered(
        store,
        {
            "cut": content[:-1],
            "shorter": content[: 2 * chunk],
            "longer": content + b"0",
            "swapped": content[chunk : 2 * chunk] + content[:chunk] + content[2 * chunk :],
            "of another write": other[:chunk] + content[chunk:],
            "empty": b"",
        }[change],
    )


def test_a_part_in_the_place_of_another_is_found(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    stores[0].write_tensors(8, 0, example(), BODY)
    for suffix in ("safetensors", "json"):
        shutil.copy(stores[0].path(4, 0, suffix), stores[0].path(8, 0, suffix))
    rewritten = json.loads(stores[0].path(8, 0, "json").read_text())
    rewritten.pop("digest")
    rewritten["step"] = 8
    stores[0].path(8, 0, "json").write_text(json.dumps({**rewritten, "digest": digest_of(rewritten)}))
    stores[0].verify(8, 0)
    with pytest.raises(SetupError, match="of another step, rank or key than its manifest says"):
        stores[0].tensors(8, 0)


def test_a_manifest_that_was_changed_is_found(stores):
    store = stores[0]
    store.write_tensors(4, 0, example(), BODY)
    manifest = store.manifest(4, 0)
    said = manifest["sealed"]
    for change, words in (
        ({"bytes": said["bytes"] - 1}, "of another step, rank or key"),
        ({"nonce": said["nonce"][2:] + "00"}, "of another step, rank or key"),
        ({"check": said["check"][2:] + "00"}, "of another step, rank or key"),
        ({"bytes": -1}, "does not say how it is sealed"),
        ({"nonce": 7}, "does not say how it is sealed"),
        ({"key": {}}, "does not say how it is sealed"),
        ({"key": {**said["key"], "id": "no"}}, "does not say how it is sealed"),
        ({"key": {**said["key"], "for": [1]}}, "does not say how it is sealed"),
    ):
        rewrite(store, lambda m, change=change: m["sealed"].update(change))
        with pytest.raises(SetupError, match=words):
            store.tensors(4, 0)
        rewrite(store, lambda m: m.update(sealed=said))
    rewrite(store, lambda m: m["sealed"].update(format=2))
    with pytest.raises(ConfigError, match="sealed in format 2"):
        store.tensors(4, 0)
    store.write_tensors(4, 0, example(), BODY)
    for state in ({"sealed": manifest["state"]["sealed"]}, {"sealed": "00"}, {"loss": 0.5}, {"sealed": "xy"}):
        rewrite(store, lambda m, state=state: m.update(state=state))
        with pytest.raises(SetupError, match=r"the state in .*rank-0.json was tampered with"):
            store.opened(4, 0, store.manifest(4, 0))


def test_wrapped_keys_that_were_changed_open_nothing(stores):
    stores[0].write_tensors(4, 0, example(), BODY)
    rewrite(
        stores[0],
        lambda m: [m["sealed"]["key"]["for"].update({k: "00" * 80}) for k in m["sealed"]["key"]["for"]],
    )
    with pytest.raises(ConfigError, match="is sealed"):
        Store(stores[0].directory, Vault(KEYS[0])).tensors(4, 0)


def test_a_key_that_was_not_wrapped_for_this_rank_is_named():
    entry = Vault(KEYS[0]).draw([KEYS[0].public])
    with pytest.raises(SetupError, match=f"not wrapped for {KEYS[1].public.hex()[:16]}"):
        Vault(KEYS[1]).sign(entry)


def test_a_checkpoint_that_whoever_writes_the_disk_has_made_is_refused(stores):
    """Public keys are public: anybody can wrap a key for them, and nobody can sign it for them."""
    (attacker,) = vaults(KEYS[3], drawn_for=KEYS)
    Store(stores[0].directory, attacker).write_tensors(4, 0, example(), BODY)
    stores[0].verify(4, 0)
    words = f"sealed with a key that {KEYS[0].public.hex()[:16]} has not signed"
    with pytest.raises(ConfigError, match=words):
        stores[0].tensors(4, 0)
    theirs = stores[0].manifest(4, 0)["sealed"]["key"]["by"][KEYS[3].public.hex()]
    for signature in (theirs, "", "no", "00" * 64):
        mine = {KEYS[0].public.hex(): signature}
        rewrite(stores[0], lambda manifest, mine=mine: manifest["sealed"]["key"]["by"].update(mine))
        with pytest.raises(ConfigError, match=words):
            stores[0].tensors(4, 0)
    stores[0].write_tensors(8, 0, example(), BODY)
    honest = stores[0].manifest(8, 0)["sealed"]["key"]["by"]
    rewrite(stores[0], lambda manifest: manifest["sealed"]["key"].update(by=honest))
    with pytest.raises(ConfigError, match=words):
        Store(stores[0].directory, Vault(KEYS[0])).tensors(4, 0)


def test_keys_are_neither_stored_nor_copied():
    (vault,) = vaults(KEYS[0])
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor stored"):
            store(vault)


def test_a_model_by_itself(tmp_path):
    first, second = vaults(*KEYS[:2])
    path, content = tmp_path / "final.pt.sealed", bytes(range(256)) * 9000
    with open(path, "wb") as file:
        seal_model(file, content, first)
    assert b"".join(bytes(piece) for piece in open_model(path, second)) == content
    with pytest.raises(ConfigError, match=f"{path} is sealed: it opens for"):
        open_model(path, Vault(KEYS[2]))
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"0", whole[:-9] + b"1" + whole[-8:]):
        path.write_bytes(changed)
        with pytest.raises(SetupError, match="tampered"):
            list(open_model(path, second))
    for changed in (b"", b"{}\n", whole[:9]):
        path.write_bytes(changed)
        with pytest.raises(SetupError, match="no sealed model"):
            open_model(path, second)
