"""Expected time of a file: it is said before the file is made, where it is long."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evocompress.checkpoint.presets import preset
from evocompress.codecs import Sensitivity
from evocompress.data.examples import Examples
from evocompress.packer import job as pack_job
from evocompress.packer.expected_time import expected_seconds
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples
from evocompress.protocols import Said


def test_time_grows_with_weights_states_and_width() -> None:
    shapes = {"a": (50, 64), "b": (5,)}
    known: dict[str, float | Sensitivity] = {"a": Sensitivity(np.eye(64)[None], np.ones(50)), "b": 1.0}
    fast, best = preset("fast", calibrated=True), preset("best", calibrated=True)
    plain = expected_seconds(known, shapes, fast)
    assert 0 < plain < expected_seconds(known, shapes, best) < 1
    assert expected_seconds(known, shapes, fast, 2.0) == pytest.approx(plain + 6)
    assert expected_seconds({"b": 1.0}, shapes, fast) == 0 == expected_seconds(known, {}, fast)
    wide = {"a": Sensitivity(np.zeros((8, 1024, 1024)), np.ones(60), 8192)}
    whole = {"a": Sensitivity(np.broadcast_to(np.zeros(1), (1, 4096, 4096)), np.ones(120))}
    assert expected_seconds(whole, {"a": (120, 4096)}, fast) > 3 * expected_seconds(wide, {"a": (60, 8192)}, fast) / 2


@pytest.mark.parametrize(("least", "said"), [(0.0, 1), (1e9, 0)])
def test_it_is_said_once_before_a_file(monkeypatch: pytest.MonkeyPatch, least: float, said: int) -> None:
    monkeypatch.setattr(pack_job, "_LONG", least)
    network, heard = nn.Sequential(nn.Linear(12, 5)), list[object]()
    inputs = Examples.unlabelled(torch.randn(20, 12, generator=torch.Generator().manual_seed(0)))
    job = PackJob(network.state_dict(), "balanced", observer=heard.append)
    job.at(1e-3)  # without calibration there is no such search
    assert not [event for event in heard if isinstance(event, Said)]
    job.calibrate(NetworkAndExamples(network, inputs, inputs))
    job.at(1e-3)
    lines = [event.text for event in heard if isinstance(event, Said)]
    assert len(lines) == said and all("layer by layer takes about" in line for line in lines)
