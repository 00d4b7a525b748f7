"""The benchmark of shared updates, in one process and on made-up times."""

import pytest
import torch
import torchrun_speed as bench
from safetensors.torch import load_file


def test_a_process_writes_its_seconds_and_its_gradient(tmp_path):
    path = tmp_path / "found.safetensors"
    bench.measure(str(path), shards=2, tasks=2, updates=1)
    found = load_file(path)
    assert found[bench.SECONDS].shape == (1,) and found[bench.SECONDS].min() > 0
    assert found["0.weight"].abs().sum() > 0


def run(seconds: list[float], slope: float) -> dict[str, torch.Tensor]:
    return {bench.SECONDS: torch.tensor(seconds), "0.weight": torch.full((2,), slope)}


def test_rates_are_of_medians_and_need_equal_gradients():
    runs = {1: [run([2.0, 9.0], 1.0), run([2.0], 1.0)], 2: [run([1.0, 1.0], 1.0)]}
    rows, values = bench.compared(runs, tasks=8)
    assert values == {"tasks_per_s_1": 4.0, "tasks_per_s_2": 8.0, "times_2": 2.0}
    assert [row["processes"] for row in rows] == [1, 2]
    with pytest.raises(SystemExit, match="2 processes find another gradient than 1"):
        bench.compared(runs | {2: [run([1.0], 1.1)]}, tasks=8)
