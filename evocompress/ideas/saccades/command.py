"""`evocompress saccades`: where the gates of a network look in one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evocompress.errors import ConfigError, DataError, EvocompressError, ModelError
from evocompress.support.command_line import NetworkOptions, check_output, echo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evocompress.data import Examples
    from evocompress.evolve.config import Config
    from evocompress.ideas.saccades.gate import Reading

__all__ = ["register"]

_GREY, _COLOUR = 1, 3
_LEAST_DEVIATION = 1e-6  # an image of one colour has none


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("saccades")(saccades)


def saccades(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS.safetensors", help="A checkpoint (safetensors, or .evc).")
    ],
    model: Annotated[
        str | None, typer.Option(help="The network: a name, or module:factory. Default that of --run, or saccade_cnn.")
    ] = None,
    settings: NetworkOptions = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A run folder: its network, with options, and its data.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write.")] = Path("saccades.png"),
    image: Annotated[
        Path | None,
        typer.Option(
            help="A picture (PNG, JPEG …). With --data its middle is cut out, scaled and normalised as that data is. "
            "What is transparent becomes white."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data set's name, or module:loader.")] = None,
    index: Annotated[int, typer.Option(help="Which of the data set's audit images.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(help="Of the data's split. Default that of --run, or 0.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="For a run that was made elsewhere: import the code that it names.")
    ] = False,
) -> None:
    """Draw what the gates chose in an image: nothing, 3×3 or 5×5 for each block, or the order of the blocks read."""
    from evocompress.support.optional_libraries import needs_extra

    source = _source(weights, run, model, settings or (), data, seed, trust)
    if image is None and source.data is None:
        raise ConfigError("There is no image: give --image PICTURE, or --data NAME and --index NUMBER, or --run DIR.")
    if output.suffix.lower() != ".png":
        raise ConfigError(f"--output {output}: must end in .png")
    check_output(output, [weights] if image is None else [weights, image])
    with needs_extra("report"):  # now, not after the work
        import evocompress.ideas.saccades.figure as figure

    from evocompress.checkpoint.loading import load
    from evocompress.ideas.saccades.cost import multiply_adds
    from evocompress.networks import build

    network = build(source.model, source.model_options)
    try:
        load(weights, network)
    except ModelError as error:
        raise ModelError(  # some end in a full stop, some do not
            f"{str(error).rstrip('.')}. The network is {source.told()}; --set gives it others, --run those of a run."
        ) from error
    pixels, name = _image(network, image, source, index)
    readings, answer = _read_image(network, pixels, name)
    work = multiply_adds(network, pixels)
    title = f"{name}: class {answer}, {work / 1e6:.2f} M multiply-adds"
    figure.write_saccade_png(pixels[0], readings, title, output)
    for layer, reading in readings.items():
        echo(f"{layer or 'whole network'}: {_shares(reading)}")
    echo(f"class {answer}; {work:.0f} multiply-adds; {output}")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Which network, and which data."""

    model: str
    model_options: Mapping[str, Any]
    data: str | None
    data_options: Mapping[str, Any]
    seed: int

    def told(self) -> str:
        """The network, with its options."""
        options = ", ".join(f"{name}={value}" for name, value in self.model_options.items())
        return f"{self.model} with {options or 'its default options'}"


def _options(config: Config, run: Path, weights: Path) -> Mapping[str, Any]:
    """Options of the run's network; where genes say some, those of the leaf that the file is."""
    if not config.genes.get("model_options"):
        return config.model_options
    from evocompress.checkpoint.weight_files import read_evc
    from evocompress.evolve.genome import network_options
    from evocompress.runs.origin import leaf_of
    from evocompress.search.history import read_history

    return network_options(config, leaf_of(read_history(run), read_evc(weights), str(weights)).genome)


def _source(
    weights: Path,
    run: Path | None,
    model: str | None,
    settings: Sequence[str],
    data: str | None,
    seed: int | None,
    trust: bool,
) -> _Source:
    """What the options say; the rest as it was in the run, if there is one."""
    from evocompress.evolve.config import override_values, parse_config
    from evocompress.evolve.trust import check_trust
    from evocompress.search.history import read_run_json

    if run is None:
        return _Source(model or "saccade_cnn", override_values({}, settings), data, {}, seed or 0)
    if model is not None:
        raise ConfigError("--run and --model exclude each other: the run says which network it is.")
    run_json = read_run_json(run)
    stored = run_json.get("config", {})
    if not trust:
        check_trust(run, run_json, stored)
    config = parse_config(stored, f"{run}/run.json")
    return _Source(
        config.model,
        override_values(_options(config, run, weights), settings),
        data or config.data,
        {} if data else config.data_options,
        config.seed if seed is None else seed,
    )


def _read_image(network: nn.Module, pixels: Tensor, name: str) -> tuple[dict[str, Reading], int]:
    """The readings of an image, and the class that the network gives it."""
    import torch

    from evocompress.ideas.saccades.maps import saccade_maps
    from evocompress.support.diagnosis import failure
    from evocompress.support.modules import evaluation_mode

    try:
        with evaluation_mode(network), torch.no_grad():
            answer = int(network(pixels).argmax(1))
    except EvocompressError as error:
        raise ModelError(f"{name} does not fit the network: {error}") from error
    except Exception as cause:
        raise failure(network, pixels, f"{name}, {tuple(pixels.shape)}", cause) from cause
    return saccade_maps(network, pixels), answer


def _image(network: nn.Module, image: Path | None, source: _Source, index: int) -> tuple[Tensor, str]:
    """The image (1, c, h, w) as the network is to see it, and what it is called."""
    from evocompress.data import load as load_data

    data = source.data
    examples = None if data is None else load_data(data, seed=source.seed, options=source.data_options).audit
    if image is not None:
        return _picture(image, network, examples), image.name
    assert examples is not None
    if examples.inputs.ndim != 4:
        raise DataError(f"data set {data!r} has inputs {tuple(examples.inputs.shape)}; a map needs images (n, c, h, w)")
    if index >= len(examples):
        raise ConfigError(f"--index {index}: {data} has {len(examples)} audit images, 0 to {len(examples) - 1}")
    pixels, labels = examples.batch(slice(index, index + 1))
    return pixels, f"{data} {index} (class {int(labels[0])})"


def _picture(path: Path, network: nn.Module, examples: Examples | None) -> Tensor:
    """A picture as the data's images, or without data with mean 0 and deviation 1."""
    import torch

    from evocompress.support.pictures import read_pixels

    channels = examples.inputs.shape[1] if examples is not None else _channels(network)
    if channels not in (_GREY, _COLOUR):
        raise ModelError(f"the network takes images of {channels} channels; a picture can be made grey (1) or RGB (3)")
    size = None if examples is None else (examples.inputs.shape[3], examples.inputs.shape[2])
    pixels = torch.from_numpy(read_pixels(path, grey=channels == _GREY, size=size)).permute(2, 0, 1)[None]
    if examples is None:
        numbers = pixels.float()
        return (numbers - numbers.mean()) / numbers.std(correction=0).clamp_min(_LEAST_DEVIATION)
    inputs: Tensor = examples.normalised(
        pixels if examples.inputs.dtype == torch.uint8 else pixels / 255 * examples.inputs.max()
    )
    return inputs


def _channels(network: nn.Module) -> int:
    """How many channels the first convolution takes."""
    from torch import nn

    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), _GREY)


def _shares(reading: Reading) -> str:
    """What was chosen in how much of the image, in words."""
    choices = reading.choices
    grid = f"{choices.shape[1]}×{choices.shape[2]} blocks of {reading.block}×{reading.block}"
    if reading.probabilities.shape[1] == 1:
        return f"{grid}, {int((choices > 0).sum())} of them read"
    names = ("nothing", "3×3", "5×5")
    shares = (f"{name} {float((choices == number).float().mean()):.0%}" for number, name in enumerate(names))
    return f"{grid}: {', '.join(shares)}".replace("%", " %")
