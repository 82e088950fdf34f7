"""DDP with compressed messages: the same bits on all ranks, error feedback, and what loops do around it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydec import compress

RANKS = 3
HERE = Path(__file__).parent


class Ranks:
    """Processes of one gloo group that run programs one after the other; new ones after a failure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._started = 0

    def __call__(self, program: str, *args: Any, **options: Any) -> list[Any]:
        """What the program returned on each rank."""
        if not self._processes:
            self._start()
        answers: dict[int, tuple[bool, Any]] = {}

        def ask(rank: int, process: Any) -> None:
            try:
                pickle.dump((program, args, options), process.stdin)
                process.stdin.flush()
                answers[rank] = pickle.load(process.stdout)
            except (EOFError, OSError) as error:
                answers[rank] = False, f"rank {rank} is gone: {error!r}"

        self._threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(self._processes)]
        for thread in self._threads:
            thread.start()
        until_s = time.monotonic() + 60.0
        while len(answers) < RANKS and all(done for done, _ in list(answers.values())):
            if time.monotonic() > until_s:
                break
            time.sleep(0.005)
        failed = [str(text) for done, text in list(answers.values()) if not done]
        if len(answers) < RANKS:
            failed.append(f"only ranks {sorted(answers)} answered")
        if failed:  # the others may wait for ever
            self.close()
        for thread in self._threads:
            thread.join()
        assert not failed, "\n".join([*failed, (self._folder / "stderr").read_text()])
        return [answers[rank][1] for rank in range(RANKS)]

    def _start(self) -> None:
        self._started += 1
        arguments = [str(RANKS), str(self._folder / f"store{self._started}")]
        with (self._folder / "stderr").open("w") as err:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, str(HERE / "ddp_programs.py"), str(rank), *arguments],
                    cwd=HERE.parents[1],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                )
                for rank in range(RANKS)
            ]

    def close(self) -> None:
        """End the processes; a program that is still running is lost."""
        for process in self._processes:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.stdout.close()
            with suppress(OSError):  # what was not read
                process.stdin.close()
        self._processes = []


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    started = Ranks(tmp_path_factory.mktemp("ddp"))
    yield started
    started.close()


def same_bits(results: list[np.ndarray]) -> bool:
    return all(np.array_equal(results[0], other) for other in results)


LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "compiled": {"compiled": True, "bucket_cap_mb": 25},
    "clipped, scheduled and averaged": {"extras": True},
    "buckets that are the gradients": {"gradient_as_bucket_view": True},
    "static graph": {"static_graph": True},
    "looking for unused parameters": {"find_unused_parameters": True, "extras": True},
    "bfloat16": {"dtype": "bfloat16"},
    "float64": {"dtype": "float64"},
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("loop", LOOPS)
def test_uncompressed_it_trains_like_ddp(ranks, loop):
    tolerance = 0.03 if loop == "bfloat16" else 1e-5
    plain = ranks("train", None, **LOOPS[loop])
    hooked = ranks("train", "none", **LOOPS[loop])
    assert same_bits([parameters for parameters, _, _ in hooked])
    np.testing.assert_allclose(hooked[0][0], plain[0][0], atol=tolerance)
    np.testing.assert_allclose(hooked[0][1], plain[0][1], atol=tolerance)


@pytest.mark.parametrize("loop", LOOPS)
def test_compressed_all_ranks_have_the_same_bits_near_those_of_ddp(ranks, loop):
    plain = ranks("train", None, **LOOPS[loop])
    dense = ranks("train", "none", **LOOPS[loop])
    hooked = ranks("train", "int8", **LOOPS[loop])
    assert same_bits([parameters for parameters, _, _ in hooked])
    assert np.abs(hooked[0][0] - plain[0][0]).mean() < 0.003
    assert hooked[0][2] < 0.27 * dense[0][2]


@pytest.mark.parametrize("spec", [name for name in compress.compressors if name != "auto"])  # refused
def test_every_compressor_keeps_ranks_together(ranks, spec):
    assert same_bits([parameters for parameters, _, _ in ranks("train", spec, 4)])


@pytest.mark.parametrize("feedback", [None, True, False])
@pytest.mark.parametrize(
    "spec",
    ["none", "int8", "int4:rounding=stochastic", "topk:fraction=0.05", "threshold", "randk:k=7", "fp16"],
)
def test_gradients_are_those_of_the_definition(ranks, spec, feedback):
    for got, expected in ranks("against_its_definition", spec, feedback):
        np.testing.assert_array_equal(got, expected)


def test_an_unbiased_compressor_of_large_variance_gets_no_feedback_by_itself(ranks):
    for got, expected in ranks("against_its_definition", "randk:k=7,unbiased=true", None):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spec", ["topk:fraction=0.02", "int4", "sign", "powersgd:rank=1"])
def test_nothing_is_lost_when_ddp_sorts_its_buckets_again(ranks, spec):
    for sent, wanted in ranks("conservation", spec):
        assert set(sent) == set(wanted)
        for name in sent:
            np.testing.assert_allclose(sent[name], wanted[name], atol=2e-6)


@pytest.mark.parametrize("spec", ["none", "int8", "topk:fraction=0.1", "powersgd"])
def test_an_overflow_on_one_rank_leaves_out_the_step_on_all(ranks, spec):
    seen = ranks("overflow", spec)
    for rank, one in enumerate(seen):
        assert [one[f"stepped {step}"] for step in range(5)] == [True, True, True, False, True]
        assert one["scale"] == 32.0
        if spec != "none":
            assert (one["refused"] > 0) == (rank == 1)
            assert ("NaN or infinite" in one["reason"]) == (rank == 1)
    assert same_bits([one["parameters"] for one in seen])


def test_without_a_scaler_nan_reaches_all_ranks_as_in_an_all_reduce(ranks):
    assert ranks("not_scaled_not_finite") == [True] * RANKS


def test_residuals_are_saved_by_parameter(ranks):
    ranks("resumed")


def test_a_group_of_one_is_left_alone(ranks):
    ranks("alone")


def test_ranks_with_other_compressors_are_told(ranks):
    for said in ranks("mismatch"):
        assert "compressor is TopK(" in said
        assert "on rank 0 but Int8(" in said


def test_what_cannot_work_is_refused_with_the_way_out(ranks):
    expected = [
        "expected a DistributedDataParallel module, got Sequential; wrap the model in DDP",
        "unknown compressor 'no-such'",
        "DDP has no rounds whose time with and without compression could be compared",
        "error feedback does not converge; use feedback=False",
        "is complex",
        "expected a DistributedDataParallel module, got Linear",
        "use broadcast_buffers=False",
        "use static_graph=True",
        "sparse=False",
    ]
    for said in ranks("refusals"):
        assert len(said) == len(expected)
        for text, part in zip(said, expected, strict=True):
            assert part in text


@pytest.mark.parametrize(
    ("spec", "most"), [("int8", 7.8), ("topk:fraction=0.01", 100), ("topk-int8:fraction=0.01", 280)]
)
def test_up_to_how_many_ranks_compressed_messages_are_fewer_bytes(spec, most):
    n = 10_000_000
    assert 8 * n / compress.make(spec).max_bytes(n) == pytest.approx(most, rel=0.02)


GOSSIP = """
import sys
import numpy as np, torch, torch.distributed as dist
import pydec

def train(peer, wrap):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 30), torch.nn.Tanh(), torch.nn.Linear(30, 2))
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.0005) if wrap else model
    if wrap:
        pydec.ddp_gossip(ddp)
    adamw = torch.optim.AdamW(ddp.parameters(), lr=1e-2)
    opt = pydec.DecentralizedOptimizer(adamw, peer, topology="ring", compressor="int8", model=model)
    random = torch.Generator().manual_seed(peer.rank)
    for _ in range(10):
        x = torch.randn(16, 8, generator=random)
        opt.zero_grad()
        (ddp(x) - x[:, :2].sin()).square().mean().backward()
        opt.step()
    opt.close()
    return torch.cat([p.detach().view(-1) for p in model.parameters()]).numpy().copy()

with pydec.init() as peer:
    dist.init_process_group(
        "gloo", init_method=f"file://{sys.argv[1]}/store", rank=peer.rank, world_size=peer.size
    )
    inside, outside = train(peer, True), train(peer, False)
    np.testing.assert_array_equal(inside, outside)
    first = torch.from_numpy(inside.copy())
    dist.broadcast(first, 0)
    differs = torch.tensor(float((first.numpy() != inside).any()))
    dist.all_reduce(differs)
    assert differs > 0  # gossip: near one another, not the same
    if peer.rank == 0:
        print("same bits")
    dist.barrier()
    dist.destroy_process_group()
"""


def test_gossip_inside_ddp_has_the_bits_of_gossip_outside(mpirun):
    done = mpirun(GOSSIP, ranks=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "same bits\n"
