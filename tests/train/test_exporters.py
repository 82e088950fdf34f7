"""Metrics as TensorBoard and Prometheus get them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.train.config import TrainConfig
from pydec.train.exporters import address, exporting

STEP = {"kind": "step", "step": 7, "loss": 0.25, "wait_s": 0.5, "who": "text", "nothing": None}
EVALUATION = {"kind": "evaluation", "step": 7, "accuracy": 0.75}


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def page(port: int) -> list[str]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return answer.read().decode().splitlines()


def test_prometheus_gets_the_last_of_every_number(tmp_path, port):
    pytest.importorskip("prometheus_client")
    with exporting(tmp_path, tensorboard=False, prometheus=str(port)) as (sink,):
        sink(json.dumps(STEP).encode())
        sink(json.dumps({**STEP, "loss": 0.125}).encode())
        sink(json.dumps(EVALUATION).encode())
        found = page(port)
    for line in ("pydec_loss 0.125", "pydec_wait_seconds 0.5", "pydec_evaluation_accuracy 0.75"):
        assert line in found
    assert not any("who" in line or "nothing" in line for line in found)
    with pytest.raises(OSError, match="refused"):
        page(port)


def test_tensorboard_reads_every_number(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with exporting(tmp_path, tensorboard=True, prometheus="") as (sink,):
        for step in (1, 2):
            sink(json.dumps({**STEP, "step": step, "loss": 1 / step}).encode())
        sink(json.dumps(EVALUATION).encode())
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert [event.value for event in found.Scalars("evaluation/accuracy")] == [0.75]


def test_a_sink_that_fails_is_said_once_and_ends_nothing(tmp_path, port, capsys):
    pytest.importorskip("prometheus_client")
    with exporting(tmp_path, tensorboard=False, prometheus=f"127.0.0.1:{port}") as (sink,):
        for _ in range(3):
            sink(b"{")
    assert capsys.readouterr().err.count("no more metrics for Prometheus") == 1


def test_a_port_that_is_taken_is_named(tmp_path):
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SetupError, match=f"{where} cannot be served.*choose another port"):
            exporting(tmp_path, tensorboard=False, prometheus=where).__enter__()


def test_addresses():
    assert address("9100") == ("127.0.0.1", 9100)
    assert address("0.0.0.0:1") == ("0.0.0.0", 1)
    assert address("[::1]:80") == ("::1", 80)
    for wrong in ("0", "65536", "host", "host:", "-1", "9100x"):
        with pytest.raises(ConfigError, match="PORT or HOST:PORT"):
            TrainConfig("blobs", prometheus=wrong)


def test_rank_0_exports_and_the_run_ends_well(toy, port):
    pytest.importorskip("tensorboard")
    pytest.importorskip("prometheus_client")
    from .test_job import together

    config = TrainConfig(f"{toy}:blobs", steps=4, tensorboard=True, prometheus=str(port))
    assert together(3, config)["status"] == "done"
    assert len(list(Path("run/tensorboard").iterdir())) == 1
