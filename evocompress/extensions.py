"""Extension points: one list of what is built in by name, to which installed packages add.

A row is a name and where the thing is, "module:attribute"; nothing is imported before it is asked for. An installed
package adds rows by entry points of the same group:

    [project.entry-points."evocompress.tasks"]
    ranking = "my_package.ranking:Ranking"

Optional parts (`evocompress/ideas/`) are rows like any others; those whose folder is gone are passed over.
`protocols.py` says what an object of each kind must be.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from evocompress.errors import ConfigError, EvocompressError

__all__ = [
    "COMMANDS",
    "DATA_SETS",
    "EXECUTORS",
    "EXPORTERS",
    "FORMS",
    "LAYER_VIEWS",
    "NETWORKS",
    "NETWORK_OPTIONS",
    "REPORT_SECTIONS",
    "SELECTION",
    "STAGES",
    "TASKS",
    "TERMS",
    "TRACKERS",
    "Extensions",
]

_IDEAS = "evocompress.ideas."


class Extensions(Mapping[str, Any]):
    """The things of one kind by name, each imported when it is first asked for; built-in ones first, in their order.

    Args:
        kind: What one of them is called in messages.
        group: The group of entry points by which installed packages add to them.
        builtin: Name to "module:attribute".
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind, self.group, self._builtin = kind, group, dict(builtin)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            if name in self._builtin and _is_there(self._builtin[name]):
                self._loaded[name] = _attribute(self._builtin[name])
            else:
                self._loaded[name] = self._of_a_package(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name, place in self._builtin.items() if _is_there(place))
        yield from self._added

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._builtin and _is_there(self._builtin[str(name)]) or name in self._added

    @functools.cached_property
    def builtin(self) -> tuple[str, ...]:
        """The names of what is built in; packages are not looked at."""
        return tuple(name for name, place in self._builtin.items() if _is_there(place))

    def find(self, name: str, *, error: type[EvocompressError] = ConfigError, hint: str = "") -> Any:
        """What has this name.

        Args:
            name: The name.
            error: What to raise.
            hint: A further sentence for the message, such as how to name an object of one's own.

        Raises:
            EvocompressError: Nothing has it; the message has the nearest name, and all of them.
        """
        if name not in self:
            near = difflib.get_close_matches(name, list(self), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise error(
                f"{self.kind} {name!r} is unknown.{meant} Known: {', '.join(sorted(self))}.{' ' if hint else ''}{hint}"
            )
        return self[name]

    def load_all(self) -> tuple[dict[str, Any], dict[str, str]]:
        """All that can be imported by name, and why the rest cannot; what is built in is imported or raises."""
        loaded: dict[str, Any] = {name: self[name] for name in self.builtin}
        problems: dict[str, str] = {}
        try:
            added = list(self._added)
        except ConfigError as failure:
            return loaded, {self.kind: str(failure)}
        for name in added:
            try:
                loaded[name] = self[name]
            except ConfigError as failure:
                problems[name] = str(failure)
        return loaded, problems

    @functools.cached_property
    def _added(self) -> dict[str, importlib.metadata.EntryPoint]:
        """The entry points of installed packages, by name; a built-in name is not theirs to take."""
        points: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            if point.name in self._builtin or (point.name in points and points[point.name].value != point.value):
                raise ConfigError(
                    f"The package {_package(point)} adds the {self.kind} {point.name!r} ({point.value}), but there is "
                    "one of this name already; it must take another name, or be uninstalled."
                )
            points[point.name] = point
        return points

    def _of_a_package(self, name: str) -> Any:
        if name not in self._added:
            raise KeyError(name)
        point = self._added[name]
        try:
            return point.load()
        except Exception as failure:
            raise ConfigError(
                f"The {self.kind} {name!r} of the package {_package(point)} cannot be imported ({point.value}): "
                f"{type(failure).__name__}: {failure}"
            ) from failure


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


def _is_there(place: str) -> bool:
    """Whether a row's module is installed: only an idea's may be gone, with its whole folder."""
    if not place.startswith(_IDEAS):
        return True
    return _has_idea(place.removeprefix(_IDEAS).partition(".")[0])


@functools.cache
def _has_idea(folder: str) -> bool:
    return importlib.util.find_spec(_IDEAS + folder) is not None


def _attribute(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


#: Stages of codecs: a codec is one or several. Their numbers in files are in codecs/FORMAT.md. Names for chains of
#: several, such as dct-trellis, are no extensions: they are `CODECS` in codecs/registry.py.
STAGES = Extensions(
    "codec or stage",
    "evocompress.codecs",
    {
        "deadzone": "evocompress.codecs.deadzone:DeadZone",
        "codebook": "evocompress.codecs.codebook:Codebook",
        "lossless": "evocompress.codecs.lossless:Lossless",
        "trellis": "evocompress.codecs.trellis:Trellis",
        "dct": "evocompress.codecs.dct:Dct",
        "threshold": "evocompress.codecs.threshold:Threshold",
        "wavelet": "evocompress.codecs.wavelet:Wavelet",
        "lowrank": "evocompress.codecs.lowrank:LowRank",
        "linearconv": "evocompress.codecs.linearconv:LinearConv",
        "symmetry": "evocompress.codecs.symmetry:Symmetry",
        "coordinates": "evocompress.codecs.coordinates:Coordinates",
        "denoise": "evocompress.codecs.denoise:Denoise",
        "rowscales": "evocompress.codecs.row_scales:RowScales",
    },
)

#: Factories of networks: keyword options to a torch module.
NETWORKS = Extensions(
    "network",
    "evocompress.networks",
    {
        "base_cnn": "evocompress.networks.base_cnn:base_cnn",
        "byte_gru": "evocompress.networks.byte_models:ByteGRU",
        "byte_transformer": "evocompress.networks.byte_models:ByteTransformer",
        "connected_cnn": "evocompress.ideas.connections.connected_cnn:ConnectedCNN",
        "digits_cnn": "evocompress.networks.digits_cnn:DigitsCNN",
        "lenet5_caffe": "evocompress.networks.lenet5_caffe:LeNet5Caffe",
        "resnet20": "evocompress.networks.resnet_cifar:resnet20",
        "resnet32": "evocompress.networks.resnet_cifar:resnet32",
        "resnet44": "evocompress.networks.resnet_cifar:resnet44",
        "resnet56": "evocompress.networks.resnet_cifar:resnet56",
        "saccade_cnn": "evocompress.ideas.saccades.networks:SaccadeCNN",
        "saccade_sequence": "evocompress.ideas.saccades.networks:saccade_sequence",
        "small_cnn": "evocompress.networks.small_cnn:SmallCNN",
        "vgg11": "evocompress.networks.vgg11:vgg11",
    },
)

#: Functions (network, *, option=…) that give a fresh network further options, whatever its factory.
NETWORK_OPTIONS = Extensions(
    "network option",
    "evocompress.network_options",
    {
        "linearconv": "evocompress.ideas.linearconv.network_option:with_linear_conv",
        "symmetry": "evocompress.ideas.symmetry.network_option:with_kernels",
        "output": "evocompress.support.modules:keep_output",
    },
)

#: Loaders (root, seed, *, options) of data sets.
DATA_SETS = Extensions(
    "data set",
    "evocompress.data",
    {
        "cifar10": "evocompress.data.cifar10:cifar10",
        "digits": "evocompress.data.digits:digits",
        "fashion_mnist": "evocompress.data.mnist:fashion_mnist",
        "mnist": "evocompress.data.mnist:mnist",
        "text": "evocompress.data.text:text",
    },
)

#: Classes of `protocols.Task`.
TASKS = Extensions(
    "task",
    "evocompress.tasks",
    {
        "classification": "evocompress.tasks.classification:Classification",
        "regression": "evocompress.tasks.regression:Regression",
        "multilabel": "evocompress.tasks.multilabel:Multilabel",
        "language_model": "evocompress.tasks.language_model:LanguageModel",
        "causal_language_model": "evocompress.tasks.language_model:CausalLanguageModel",
    },
)

#: Classes of `protocols.Term`, in the order in which they act.
TERMS = Extensions(
    "term",
    "evocompress.terms",
    {
        "rate": "evocompress.training.terms.rate:Rate",
        "network_penalty": "evocompress.training.terms.network_penalty:NetworkPenalty",
        "kernel_penalties": "evocompress.ideas.symmetry.terms:KernelPenaltyTerm",
        "correlation": "evocompress.ideas.linearconv.term:CorrelationTerm",
        "thin": "evocompress.ideas.connections.term:ThinTerm",
        "distillation": "evocompress.training.terms.distillation:Distillation",
        "l1": "evocompress.training.terms.l1:L1",
        "group_l1": "evocompress.training.terms.group_l1:GroupL1",
        "noise": "evocompress.training.terms.quantisation_noise:Noise",
        "snap": "evocompress.ideas.symmetry.terms:SnapTerm",
    },
)

#: Classes of `protocols.Form`, in the order in which they act.
FORMS = Extensions(
    "form",
    "evocompress.forms",
    {
        "plan": "evocompress.ideas.connections.form:PlanForm",
        "linearconv": "evocompress.ideas.linearconv.form:LinearConvForm",
    },
)

#: Classes of `protocols.LayerView`; of several views of a layer the first counts.
LAYER_VIEWS = Extensions(
    "layer view",
    "evocompress.layer_views",
    {
        "convolution": "evocompress.calibration.layer_views.convolution:ConvolutionView",
        "linear": "evocompress.calibration.layer_views.linear:LinearView",
        "embedding": "evocompress.calibration.layer_views.embedding:EmbeddingView",
        "attention": "evocompress.calibration.layer_views.attention:AttentionView",
        "recurrent": "evocompress.calibration.layer_views.recurrent:RecurrentView",
        "recurrent_cell": "evocompress.calibration.layer_views.recurrent:RecurrentCellView",
        "normalisation": "evocompress.calibration.layer_views.normalisation:NormalisationView",
        "linearconv": "evocompress.ideas.linearconv.layer_view:LinearConvView",
        "overprovisioned": "evocompress.ideas.connections.layer_view:OverProvisionedView",
        "saccade_gate": "evocompress.ideas.saccades.layer_view:GateView",
    },
)

#: Functions (history, folder, read_leaf) that write files into a folder and give their paths. When a run ends all are
#: called but those whose attribute `in_report` is False: `runs.export`, `runs.file_exporter`.
EXPORTERS = Extensions(
    "exporter",
    "evocompress.exporters",
    {
        "front": "evocompress.runs.export:export_front",
        "segments": "evocompress.runs.export:SEGMENTS",
        "picture": "evocompress.runs.export:PICTURE",
        "report": "evocompress.runs.export:REPORT",
        "csv": "evocompress.runs.leaf_table:CSV",
        "parquet": "evocompress.runs.leaf_table:PARQUET",
        "optuna": "evocompress.runs.optuna_study:STUDY",
    },
)

#: Functions (history) that give a `runs.report.ReportSection`, or None.
REPORT_SECTIONS = Extensions(
    "report section",
    "evocompress.report_sections",
    {"saccades": "evocompress.ideas.saccades.report_section:saccade_section"},
)

#: Functions (segment, storage, resources) that make an executor: `search.executors.MakeExecutor`.
EXECUTORS = Extensions(
    "executor",
    "evocompress.executors",
    {
        "inline": "evocompress.search.inline_executor:inline_executor",
        "ray": "evocompress.search.ray_executor:ray_executor",
    },
)

#: `search.selection_policies.Policy` objects.
SELECTION = Extensions(
    "selection",
    "evocompress.selection",
    {
        "dominance": "evocompress.search.selection_policies:DOMINANCE",
        "random": "evocompress.search.selection_policies:RANDOM",
        "scalar": "evocompress.search.selection_policies:SCALAR",
    },
)

#: Classes, or functions without arguments, that make a `runs.trackers.Tracker`.
TRACKERS = Extensions(
    "tracker",
    "evocompress.trackers",
    {
        "tensorboard": "evocompress.runs.trackers.tensorboard_tracker:TensorBoard",
        "mlflow": "evocompress.runs.trackers.mlflow_tracker:Mlflow",
        "wandb": "evocompress.runs.trackers.wandb_tracker:WandB",
    },
)

#: Functions (app) that add the command of the row's name to a Typer application.
COMMANDS = Extensions(
    "command",
    "evocompress.commands",
    {
        "kernels": "evocompress.ideas.kernels.command:register",
        "saccades": "evocompress.ideas.saccades.command:register",
    },
)
