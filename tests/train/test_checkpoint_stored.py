"""Checkpoints in a store: the same bits go on, equal tensors are there once, copies move what is new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pydec.cli.main import main
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError, SetupError
from pydec.peer import Peer
from pydec.store.collecting import Garbage, collect
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from pydec.train.checkpoint_chunks import Chunks, pieces_of, root_of
from pydec.train.checkpoint_garbage import orphans
from pydec.train.checkpoint_layout import Layout
from pydec.train.checkpoint_stored import StoredParts
from pydec.train.replicas_chunks import ChunkReplicas
from pydec.train.resume import configuration
from pydec.train.rundir import RunDir

from .test_replicas import on_own_disks
from .test_replicas import together as on_disks
from .test_resume import config, cut, go_on, together

STORED = {"store_checkpoints": True, "store": "store"}


def parts(run_dir: str, store: str = "store") -> StoredParts:
    path = Path(run_dir)
    return StoredParts(RunDir(path), Chunks(Path(store), path, writes=False))


def tensors(run_dir: str, step: int, rank: int, store: str = "store") -> dict[str, torch.Tensor]:
    """What decides a rank's next step; the ranks of a local cluster share torch's generator."""
    found = parts(run_dir, store).tensors(step, rank)
    return {name: tensor for name, tensor in found.items() if not name.startswith("pydec/random")}


@pytest.mark.parametrize("algorithm", ["dpsgd:order=atc", "choco:gamma=0.5"])
def test_as_many_ranks_go_on_with_the_same_bits(toy, algorithm):
    options = {"algorithm": algorithm, "optimizer": "sgd:momentum=0.9", "topology": "ring"}
    together(3, config(toy, **options), "plain")
    together(3, config(toy, **options, **STORED), "whole")
    assert not list(Path("whole").glob("checkpoints/step-*/*.safetensors"))
    cut("whole", 8, "cut")
    go_on(3, "cut")
    for rank in range(3):
        files = load_file(f"plain/checkpoints/step-12/rank-{rank}.safetensors")
        for run_dir in ("whole", "cut"):
            mine = tensors(run_dir, 12, rank)
            assert [name for name in mine if not torch.equal(mine[name], files[name])] == []
    final = [torch.load(f"{name}/checkpoints/final.pt") for name in ("plain", "cut")]
    assert all(torch.equal(value, final[1][name]) for name, value in final[0].items())


def test_another_number_of_ranks_and_one_without_the_option_read_them(toy):
    together(3, config(toy, **STORED), "run")
    assert go_on(2, "run", steps=16)["status"] == "done"
    assert go_on(2, "run", steps=20, store_checkpoints=False)["status"] == "done"
    assert Path("run/checkpoints/step-20/rank-1.safetensors").exists()


def test_what_old_checkpoints_alone_needed_goes(toy):
    together(2, config(toy, keep_last=1, **STORED), "run")
    with Store(Path("store")) as store:
        names = sorted(store.manifest(root).name for root in store.roots())
        assert [name.partition(".")[2] for name in names] == ["step-12.rank-0", "step-12.rank-1"]
        assert collect(store) == Garbage(0, 0, 0)


def test_what_a_process_that_died_while_writing_has_left_is_collected(toy, monkeypatch):
    together(2, config(toy, keep_last=1, **STORED), "run")
    with monkeypatch.context() as patched:
        patched.setattr(StoredParts, "_write_manifest", lambda *_: 1 / 0)
        left = StoredParts(RunDir(Path("run")), Chunks(Path("store"), Path("run"), writes=True))
        with pytest.raises(ZeroDivisionError):
            left.write_tensors(13, 0, {"w": torch.arange(1 << 19)}, {"members": [0, 1]})
    with Store(Path("store")) as store:
        roots = set(store.roots())
        assert collect(store) == Garbage(0, 0, 0)  # nobody has said where its run is
        (orphan,) = orphans(store)
        assert store.manifest(orphan).name.endswith(".step-13.rank-0")
        Path("run").rename("away")
        assert orphans(store) == []
        Path("away").rename("run")
        (hosts,) = Path("store/runs").iterdir()
        (hosts / "another").write_bytes(b"/run")
        assert orphans(store) == []
        (hosts / "another").unlink()
        found = collect(store, orphans=orphans)
        assert (found.data_sets, found.objects > 1, found.n_bytes > 4 << 20) == (1, True, True)
        assert set(store.roots()) == roots - {orphan}
        assert orphans(store) == []
    assert go_on(2, "run", steps=16)["status"] == "done"


def test_the_summary_tells_what_the_store_saves(toy):
    result = together(2, config(toy, keep_last=2, **STORED), "run")["checkpoints"]
    with Store(Path("store")) as store:
        names = {name for root in store.roots() for name in objects_of(store, store.manifest(root))}
        assert result["stored_bytes"] == sum(map(store.objects.size, names))
    assert result["bytes"] >= result["stored_bytes"] > 0
    assert result["deduplication"] == round(result["bytes"] / result["stored_bytes"], 3)
    assert "checkpoints" not in together(2, config(toy), "files")


def test_plain_files_come_out_and_are_a_checkpoint_by_themselves(toy, capsys):
    together(2, config(toy, **STORED), "run")
    assert main(["checkpoint", "show", "run"]) == 0
    assert capsys.readouterr().out.count("in the store as") == 6
    assert main(["checkpoint", "open", "run", "--step", "8", "--out", "out"]) == 0
    root = parts("run").stored(8, 1).hex()
    assert main(["data", "export", root[:16], "exported", "--store", "store", "--quiet"]) == 0
    assert (
        Path("exported/rank-1.safetensors").read_bytes() == Path("out/step-8/rank-1.safetensors").read_bytes()
    )
    for rank in range(2):
        root = parts("run").stored(8, rank).hex()
        main(["data", "export", root, f"only/checkpoints/step-8/{rank}", "--store", "store", "--quiet"])
    capsys.readouterr()


class Big:
    """A part with a large tensor that stays, and one that changes."""

    def __init__(self, changing: float, rows: int = 3) -> None:
        random = torch.Generator().manual_seed(0)
        self.tensors = {
            "still": torch.randn(rows, 1 << 18, generator=random),
            "moving": torch.full((1 << 18,), float(changing)),
            "step": torch.tensor(int(changing)),
        }

    @property
    def content(self) -> torch.Tensor:
        layout = Layout(self.tensors)
        buffer = layout.buffer()
        layout.fill(buffer, self.tensors)
        return buffer


def written(tmp_path: Path, rank: int = 0, **names: str) -> StoredParts:
    path = tmp_path / names.get("run", f"disk-{rank}/run")
    return StoredParts(
        RunDir(path), Chunks(tmp_path / names.get("store", f"store-{rank}"), path, writes=True)
    )


def objects(store: StoredParts) -> set[bytes]:
    return set(store.chunks.store.objects.names())


def test_equal_tensors_are_there_once_between_rounds_ranks_and_layouts(tmp_path):
    store = written(tmp_path)
    store.write_buffer(4, 0, Big(1).content, {"members": [0]})
    first = objects(store)
    store.write_buffer(8, 0, Big(2).content, {"members": [0]})
    store.write_tensors(8, 1, {"other": torch.arange(5.0), **Big(3).tensors}, {"members": [0, 1]})
    big = {name for name in objects(store) if store.chunks.store.objects.size(name) == 1 << 20}
    assert len(big) == 3 + 3  # the rows of what stays, and one of what moves for each part
    for step, rank in ((4, 0), (8, 0), (8, 1)):
        store.verify(step, rank)
    assert torch.equal(store.tensors(4, 0)["still"], Big(1).tensors["still"])
    store.remove(8, 0)
    store.remove(8, 1)
    store.close()
    again = written(tmp_path)
    assert objects(again) == first
    assert again.steps() == [4]


def test_the_root_of_pieces_is_that_of_the_file(tmp_path):
    content = Big(1).content
    pieces = pieces_of(content)
    assert b"".join(map(bytes, pieces())) == bytes(content.numpy())
    store = written(tmp_path)
    store.write_buffer(4, 0, content, {"members": [0]})
    assert root_of(pieces()).hex() == store.manifest(4, 0)["tensors"]["blake3"]


def test_damage_is_found_and_named(tmp_path):
    store = written(tmp_path)
    store.write_buffer(4, 0, Big(1).content, {"members": [0]})
    names = objects(store)
    with Store(store.chunks.store.directory) as data:
        (manifest,) = data.manifests().values()
        victim = next(name for name in objects_of(data, manifest) if data.objects.size(name) == 1 << 20)
        data.objects.path(victim).write_bytes(b"damaged")
    with pytest.raises(SetupError, match="1 are not what their names say"):
        store.verify(4, 0)
    with pytest.raises(SetupError, match="is not in"):
        store.tensors(4, 0)
    assert objects(store) == names - {victim}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[StoredParts]]:
    stores = [written(tmp_path, rank) for rank in range(2)]
    yield stores
    for store in stores:
        store.close()


def copied(stores: list[StoredParts], step: int, to: list[int] | None = None) -> list[ChunkReplicas]:
    """Rank 0 sends its part of a step to rank 1."""

    def program(transport: Any) -> ChunkReplicas:
        store = stores[transport.rank]
        with Peer(transport, signals=False) as peer:
            replicas = ChunkReplicas(peer, store, 2, range(2))
            with replicas:
                if peer.rank == 0:
                    replicas.begin(step, 0, to)
                replicas.finish()
        return replicas

    return LocalCluster(2).run(program)


def test_a_copy_moves_what_the_receiver_lacks(pair):
    mine, other = pair
    mine.write_buffer(4, 0, Big(1).content, {"members": [0, 1]})
    first = copied(pair, 4)
    assert (first[0].there, first[0].failure) == (2, "")
    mine.write_buffer(8, 0, Big(2).content, {"members": [0, 1]})
    second = copied(pair, 8)
    assert second[0].there == 2
    assert first[1].exchange.counts["bytes_fetched"] > 4 << 20
    assert second[1].exchange.counts["bytes_fetched"] < 1.2 * (1 << 20)
    for step in (4, 8):
        assert other.verify(step, 0) == mine.verify(step, 0)
        assert other.ranks(step) == [0]
    assert (4, 0) in first[1].arrived


def test_a_copy_that_is_damaged_is_mended_with_what_is_damaged(pair):
    mine, other = pair
    mine.write_buffer(4, 0, Big(1).content, {"members": [0, 1]})
    copied(pair, 4)
    data = other.chunks.store
    victim = next(name for name in data.objects.names() if data.objects.size(name) == 1 << 20)
    data.objects.path(victim).write_bytes(b"damaged")
    again = copied(pair, 4)
    assert again[1].exchange.counts["bytes_fetched"] < 1.1 * (1 << 20)
    other.verify(4, 0)
    (manifest,) = data.manifests().values()
    assert verify(data, manifest).whole


def test_a_sender_that_lacks_something_makes_no_copy_and_a_full_disk_neither(pair, monkeypatch):
    mine, other = pair
    mine.write_buffer(4, 0, Big(1).content, {"members": [0, 1]})

    def full(*given: Any, **named: Any) -> None:
        raise SetupError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(StoredParts, "_write_manifest", full)
        refused = copied(pair, 4)
    assert "rank 1 could not keep a copy: the disk is full" in refused[0].failure
    assert other.ranks(4) == []
    data = mine.chunks.store
    victim = next(name for name in data.objects.names() if data.objects.size(name) == 1 << 20)
    data.objects.path(victim).unlink()
    other.chunks.store.objects.path(victim).unlink()
    refused = copied(pair, 4)
    assert "of it is whole on no disk" in refused[0].failure
    assert refused[1].refused[0, 4, 0][1]
    assert other.ranks(4) == []


def damage_of(rank: int, store: str, run_dir: str) -> None:
    """Spoil one object that only a rank's own newest part needs."""
    root = parts(run_dir, store).stored(12, rank)
    with Store(Path(store)) as data:
        others = data.named(roots=[other for other in data.roots() if other != root])
        victim = next(name for name in objects_of(data, data.manifest(root)) if name not in others)
        data.objects.path(victim).write_bytes(b"damaged")


@pytest.mark.parametrize("own_run_directory", [True, False])
def test_a_rank_that_lost_its_store_goes_on_from_the_copies(toy, monkeypatch, own_run_directory):
    if own_run_directory:
        on_own_disks(monkeypatch)
    settings = config(toy, replicas=2, store_checkpoints=True, store="store-{rank}")
    on_disks(3, settings)
    base = "disk-{}/run" if own_run_directory else "run"
    expected = [tensors(base.format(rank), 12, rank, f"store-{rank}") for rank in range(3)]
    for path in list(Path("store-1/objects").rglob("*")):
        if path.is_file():
            path.unlink()
    damage_of(2, "store-2", base.format(2))
    run_dir = base.format(0)
    longer = configuration(run_dir, {"steps": 16})
    assert on_disks(3, longer, resume=True)["status"] == "done"
    for rank in range(3):
        mine = tensors(base.format(rank), 12, rank, f"store-{rank}")
        assert all(torch.equal(mine[name], expected[rank][name]) for name in mine)


def test_sealed_ones_are_refused_in_a_store(toy):
    with pytest.raises(ConfigError, match="sealed tensors are never equal"):
        config(toy, seal_checkpoints=True, ledger="L", **STORED)
    with pytest.raises(ConfigError, match="there are none"):
        config(toy, checkpoint_every=0, keep_last=0, **STORED)
