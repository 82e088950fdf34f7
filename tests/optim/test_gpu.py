"""Models on a GPU are averaged there: the same bits as in host memory, and packets alone leave the GPU.

The GPU is the emulator of the CUDA kernels, and a ``Place`` whose copies show only when they are waited for;
where there is a GPU, the same runs on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.comm.view import View
from pydec.errors import ConfigError, Evicted, ProtocolError
from pydec.gossip import base
from pydec.gossip.control import controls
from pydec.gossip.gpu import GpuExchange
from pydec.kernels.cuda import _module
from pydec.optim.exchanges import make_exchange
from pydec.optim.plan import Plan
from tests.emulated import EmulatedPlace, load_emulated

Run = Callable[..., list[Any]]
SIZE = 3

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes an emulated GPU; buckets are small enough for several."""
    monkeypatch.setattr(_module, "_loaded", load_emulated())
    for name in ("BUCKET_ELEMENTS", "_MIN_BUCKET_ELEMENTS"):
        monkeypatch.setattr(base, name, 512)
    return EmulatedPlace


def train(
    peer: Any, device: Any, options: dict[str, Any], dtype: torch.dtype = torch.float32, home: str = "cpu"
) -> list[np.ndarray]:
    """Some steps, a checkpoint in between, and all that a rank can see of its model."""
    random = torch.Generator().manual_seed(peer.rank)  # ranks take turns with the common one

    def start(seed: int) -> tuple[nn.Module, DecentralizedOptimizer]:
        model = nn.Sequential(nn.Linear(7, 90), nn.BatchNorm1d(90), nn.Linear(90, 9)).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(generator=random).mul_(0.3)
        model = model.to(home)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1 + 0 * seed)
        place = device() if callable(device) else device
        return model, DecentralizedOptimizer(sgd, peer, model=model, iid=True, gossip_device=place, **options)

    def step(model: nn.Module, opt: DecentralizedOptimizer) -> None:
        opt.zero_grad()
        model(torch.randn(5, 7, generator=random).to(home, dtype)).square().mean().backward()
        opt.step()
        seen.extend(value.clone() for value in model.state_dict().values())

    seen: list[torch.Tensor] = []
    model, opt = start(0)
    for _ in range(2):
        step(model, opt)
    saved, weights = opt.state_dict(), {key: value.clone() for key, value in model.state_dict().items()}
    opt.close()
    model, opt = start(1)
    model.load_state_dict(weights)
    opt.load_state_dict(saved)
    for _ in range(2):
        step(model, opt)
    seen.append(torch.tensor([opt.consensus_distance()]))
    with opt.averaged():
        seen.extend(value.clone() for value in model.state_dict().values())
    opt.merge()
    step(model, opt)
    seen.extend(opt.state_dict()["gossip"]["vectors"].values())
    opt.close()
    return [np.array(value.detach().cpu().double().numpy()) for value in seen]


def same(ours: list[Any], expected: list[Any]) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def options(algorithm: str, compressor: str, topology: Any = "ring", **more: Any) -> dict[str, Any]:
    return {"algorithm": algorithm, "compressor": compressor, "topology": topology, **more}


CASES = [
    options("dpsgd:order=cta", "none"),
    options("dpsgd:order=cta", "int8"),
    options("dpsgd:order=atc", "none", estimate=True),
    options("dpsgd:order=atc", "int8:rounding=stochastic", "one-peer-exponential", local_steps=2),
    options("dpsgd:order=atc", "bf16", estimate=True),
    options("choco", "int8"),
    options("choco", "topk:fraction=0.1"),
    options("choco:order=cta", "sign"),
    options("choco-peers", "topk:fraction=0.2", "one-peer-exponential"),
    options("sgp", "none", "leaky"),
    options("sgp:order=cta", "int8", "leaky"),
    options("gradient-tracking", "none"),
    options("momentum-tracking", "none"),
    options("beer", "topk:fraction=0.2"),
]


def name_of(case: dict[str, Any]) -> str:
    return " ".join(str(value) for value in case.values())


DIRECT = [CASES[k] for k in (1, 2, 6, 10)]  # one of every way in which packets are written


@pytest.mark.parametrize(
    ("case", "direct"),
    [*((case, False) for case in CASES), *((case, True) for case in DIRECT)],
    ids=lambda value: name_of(value) if isinstance(value, dict) else "direct" if value else "staged",
)
def test_training_has_the_same_bits(
    run_peers: Run, emulated: Any, monkeypatch: Any, leaky: Any, case: dict[str, Any], direct: bool
) -> None:
    case = case | {"topology": leaky(SIZE) if case["topology"] == "leaky" else case["topology"]}
    expected = run_peers(SIZE, lambda peer: train(peer, "cpu", case))
    monkeypatch.setattr(LocalTransport, "takes_gpu_memory", direct)
    same(run_peers(SIZE, lambda peer: train(peer, emulated, case)), expected)


def test_a_state_in_host_memory_goes_on_on_a_gpu_and_back(run_peers: Run, emulated: Any) -> None:
    """Bits and all: checkpoints say nothing of where they were made; half precision is kept in float32."""
    case = options("choco", "int8")

    def move(peer: Any, first: Any, second: Any) -> Any:
        x = nn.Parameter(torch.arange(40.0).to(torch.bfloat16) + peer.rank)
        random = torch.Generator().manual_seed(peer.rank)
        saved: dict[str, Any] = {}
        for device in (first, second):
            place = device() if callable(device) else device
            sgd = torch.optim.SGD([x], lr=0.1)
            opt = DecentralizedOptimizer(sgd, peer, iid=True, init="keep", gossip_device=place, **case)
            if saved:
                opt.load_state_dict(saved)
            x.grad = torch.randn(40, generator=random).to(torch.bfloat16)
            opt.step()
            saved = opt.state_dict()
            opt.close()
        return [x.detach().float().numpy(), *(v.numpy() for v in saved["gossip"]["vectors"].values())]

    expected = run_peers(2, lambda peer: move(peer, "cpu", "auto"))
    same(run_peers(2, lambda peer: move(peer, "cpu", emulated)), expected)
    same(run_peers(2, lambda peer: move(peer, emulated, "cpu")), expected)


@pytest.mark.parametrize("compressor", ["int8", "bf16", "topk:fraction=0.5"])
def test_what_cannot_be_encoded_is_not_sent(run_peers: Run, emulated: Any, compressor: str) -> None:
    def run(peer: Any) -> None:
        x = nn.Parameter(torch.ones(8))
        case = options("choco", compressor)
        sgd = torch.optim.SGD([x], lr=0.1)
        opt = DecentralizedOptimizer(
            sgd, peer, iid=True, nan_policy="continue", gossip_device=emulated(), **case
        )
        x.grad = torch.full((8,), float("inf"))
        opt.step()

    with pytest.raises(ValueError, match=r"cannot encode a vector on a GPU: [18] of its elements or blocks"):
        run_peers(2, run)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("compressor", "at", "value", "words"),
    [
        ("int8", 19, 0xFF, "a scale that is negative"),
        ("int8", 0, 99, "wire id 99"),
        ("topk:fraction=0.5", 32, 0xFF, "indices that do not increase"),
        ("bf16", 17, 0x7F, None),
    ],
)
def test_a_damaged_packet_is_refused(
    emulated: Any, monkeypatch: Any, direct: bool, compressor: str, at: int, value: int, words: str | None
) -> None:
    """One flipped byte of a body or a header; the GPU finds the first and the host names it."""
    from pydec import gossip, topology
    from pydec.comm.frames import HEADER_BYTES
    from pydec.optim.places import compressor_at
    from tests.optim.conftest import LocalPeer

    monkeypatch.setattr(LocalTransport, "takes_gpu_memory", direct)
    lie = {"sent": False}
    honest = GpuExchange._encode

    def encode(self: Any, number: int, packet: Any, peer: int = -1) -> Any:
        message = honest(self, number, packet, peer)
        if self.transport.rank == 1:
            lie["sent"] = True
            self._place.copies = [
                (to, _damaged(content, HEADER_BYTES + at, value), down) if down and len(content) > 64 else
                (to, content, down)
                for to, content, down in self._place.copies
            ]  # fmt: skip
            for staging in self._leaving.values():
                staging._event.record()
            if direct:
                message[HEADER_BYTES + at] = value
        return message

    monkeypatch.setattr(GpuExchange, "_encode", encode)

    def program(transport: Any) -> None:
        peer, place = LocalPeer(transport), emulated()
        from pydec import compress

        x = place.zeros(64, torch.float32)
        x += 1.0 + torch.arange(64.0) * (1 + transport.rank)
        packer = compressor_at(place, compress.make(compressor))
        mixer = gossip.make("choco").mixer(x, packer, 1)
        ring, choco = topology.make("ring", size=2), gossip.make("choco")
        plan = Plan(
            ring, compress.make(compressor), choco, 1, controls.make("fixed"), "raise", False, lost="raise"
        )
        exchange = make_exchange(peer, plan, ring, [mixer], place)
        before = x.clone()
        if transport.rank == 0:
            with pytest.raises(ProtocolError, match="rank 1 sent a malformed packet") as caught:
                exchange.run(0)
            assert words is None or words in str(caught.value)
            assert torch.equal(before, x)
        else:
            exchange.run(0)
        exchange.close()

    LocalCluster(2).run(program)
    assert lie["sent"]


def _damaged(content: torch.Tensor, at: int, value: int) -> torch.Tensor:
    content = content.clone()
    content[at] = value
    return content


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (options("diloco", "none"), "DiLoCo works in host memory"),
        (options("choco", "powersgd"), "compressor PowerSGD has no CUDA kernels"),
        (options("choco", "topk-int8"), "compressor TopKInt8 has no CUDA kernels"),
        (options("dpsgd", "none"), "parameter 0 of group 0 is on cpu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_said(run_peers: Run, case: dict[str, Any], words: str) -> None:
    def run(peer: Any, device: Any) -> str:
        sgd = torch.optim.SGD([nn.Parameter(torch.zeros(64))], lr=0.1)
        return DecentralizedOptimizer(sgd, peer, iid=True, gossip_device=device, **case).gossip_device

    with pytest.raises(ConfigError, match=f"gossip_device='cuda' cannot be met: .*{words}"):
        run_peers(2, lambda peer: run(peer, "cuda"))
    assert words in run_peers(2, lambda peer: run(peer, "auto"))[0]
    assert run_peers(2, lambda peer: run(peer, "cpu"))[0] == "cpu, as asked for"
    with pytest.raises(ConfigError, match="gossip_device must be one of auto, cpu, cuda, got 'gpu'"):
        run_peers(2, lambda peer: run(peer, "gpu"))


@pytest.mark.parametrize("case", [CASES[k] for k in (1, 5, 10, 11)], ids=name_of)
def test_other_members_and_deaths_leave_the_same_bits(
    run_peers: Run, emulated: Any, case: dict[str, Any]
) -> None:
    """A member is evicted in round 2; another is dead after step 4, and what ``heal`` does then is done."""
    graph = "exponential" if case["topology"] == "leaky" else case["topology"]

    def run(peer: Any, device: Any) -> list[np.ndarray]:
        x = nn.Parameter(torch.full((1200,), float(peer.rank)))
        place = device() if callable(device) else device
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.1), peer, iid=True, init="keep", gossip_device=place,
            **case | {"topology": graph},
        )  # fmt: skip
        opt.views.change(View(1, (4, 0, 2, 1), seed=9, start_round=2))
        random, seen = torch.Generator().manual_seed(peer.rank), []
        for step in range(7):
            x.grad = torch.randn(1200, generator=random)
            try:
                opt.step()
            except Evicted:
                return seen
            seen.append(x.detach().numpy().copy())
            if step == 4:
                if peer.rank == 2:
                    return seen
                opt._rounds.restart((4, 0, 1))  # type: ignore[union-attr]
        opt.close()
        return seen

    same(run_peers(5, lambda peer: run(peer, emulated)), run_peers(5, lambda peer: run(peer, "cpu")))


_EMULATED = """
import sys, numpy as np, torch, pydec
from torch import nn
from pydec.comm.mpi import MpiTransport
from pydec.kernels.cuda import _module
from tests.emulated import EmulatedPlace, load_emulated
_module._loaded = load_emulated()
peer = pydec.init()
found = []
for place, direct in (("cpu", False), (EmulatedPlace(), False), (EmulatedPlace(), True)):
    MpiTransport.takes_gpu_memory = direct
    torch.manual_seed(peer.rank)
    model = nn.Linear(70, 300)
    opt = pydec.DecentralizedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), peer, topology="ring", algorithm="choco:order=cta",
        compressor="int8", iid=True, gossip_device=place)
    for step in range(3):
        opt.zero_grad()
        model(torch.randn(16, 70)).square().mean().backward()
        opt.step()
    opt.close()
    found.append(model.weight.detach().numpy())
    np.testing.assert_array_equal(found[0], found[-1])
peer.close()
print("same bits on rank", peer.rank)
"""


@pytest.mark.usefixtures("emulated")
def test_two_ranks_of_mpi_have_the_same_bits(mpirun: Any) -> None:
    done = mpirun(_EMULATED, 2, timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same bits on rank") == 2


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@GPU
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_gpu_has_the_bits_of_host_memory(run_peers: Run, leaky: Any, case: dict[str, Any]) -> None:
    """The model computes on the GPU in both runs; only where it is averaged differs."""
    pytest.importorskip("pydec._native_cuda", reason="built without CUDA")
    case = case | {"topology": leaky(SIZE) if case["topology"] == "leaky" else case["topology"]}
    expected = run_peers(SIZE, lambda peer: train(peer, "cpu", case, home="cuda"))
    same(run_peers(SIZE, lambda peer: train(peer, "cuda", case, home="cuda")), expected)


_PROGRAM = """
import numpy as np, torch, pydec
from torch import nn
peer = pydec.init()
found = []
for device in ("cpu", "cuda"):
    torch.manual_seed(peer.rank)
    model = nn.Linear(300, 100).cuda()
    opt = pydec.DecentralizedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), peer, topology="ring", algorithm="choco",
        compressor="int8", iid=True, gossip_device=device)
    for step in range(10):
        opt.zero_grad()
        model(torch.randn(16, 300).cuda()).square().mean().backward()
        opt.step()
    opt.close()
    found.append(model.weight.detach().cpu().numpy())
assert opt.gossip_device == "cuda:0", opt.gossip_device
np.testing.assert_array_equal(*found)
peer.close()
print("same bits on rank", peer.rank)
"""


@GPU
@pytest.mark.timeout(300)
def test_two_ranks_of_mpi_share_a_gpu(mpirun: Any) -> None:
    pytest.importorskip("pydec._native_cuda", reason="built without CUDA")
    done = mpirun(_PROGRAM, 2, timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same bits on rank") == 2
