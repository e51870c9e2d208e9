"""Few bits guard against over-fitting: is it so? Training and audit error along a front, with and without wrong labels.

    python -m benchmarks.search.overfitting [--seeds 3] [--wrong 0 0.333] [--picture docs/overfitting.png]

Digits, `digits_cnn`. A share of the labels of training and validation data is drawn at random (audit labels are right).
By seed: one lineage under a rising λ (eight segments of 40 epochs, each from its parent's file alone), and what one
would do instead, 80 epochs of plain training each: with early stopping, and with decoupled weight decay (Loshchilov and
Hutter, 2019) of 0 to 3. Epoch, decay and λ are each chosen by the error on validation data.

Prints one JSON line; the picture shows errors against bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.search.lineage import Trainer

if TYPE_CHECKING:
    from evocompress.data import Splits
    from evocompress.data.examples import Examples

CONFIG = Path(__file__).parents[2] / "configs" / "digits.toml"
RISING = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
DECAYS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_EPOCHS, _PLAIN_EPOCHS = 40, 80


def noisy(examples: Examples, share: float, seed: int) -> Examples:
    """A share of the labels drawn at random, from all classes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    labels = examples.labels.clone()
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    labels[wrong] = torch.randint(int(labels.max()) + 1, (len(wrong),), generator=generator)
    return dataclasses.replace(examples, labels=labels)


def with_wrong_labels(splits: Splits, share: float, seed: int) -> Splits:
    """Training and validation labels are noisy alike, audit labels right."""
    train, validation = (noisy(part, share, seed + k) for k, part in enumerate((splits.train, splits.validation)))
    return dataclasses.replace(splits, train=train, validation=validation)


def errors(trainer: Trainer, network: Any) -> dict[str, float]:
    """Errors on the three splits."""
    from evocompress.tasks.measure import measure

    task, splits = trainer.experiment.task(), trainer.splits
    return {
        name: round(measure(task, network, getattr(splits, name)).error, 4) for name in ("train", "validation", "audit")
    }


def lineage(trainer: Trainer, seed: int) -> list[dict[str, float]]:
    """Errors and bytes of each file."""
    from evocompress.checkpoint.loading import load_state
    from evocompress.checkpoint.packing import unpack

    rows, parent = [], None
    for place, rate_weight in enumerate(RISING):
        parent = trainer(rate_weight, _EPOCHS, 1000 * seed + place, parent)
        network = trainer.experiment.network()
        load_state(network, unpack(parent, names=network.state_dict()), "the file")
        rows.append({"rate_weight": rate_weight, "nbytes": len(parent), **errors(trainer, network)})
    return rows


def plain(trainer: Trainer, seed: int, weight_decay: float) -> list[dict[str, float]]:
    """Errors after every second epoch of plain training; a segment of it begins where the last one ended."""
    from evocompress.networks import build
    from evocompress.training.trainer import TrainingGenes, train

    network = build(trainer.experiment.model, trainer.experiment.model_options, seed=1000 * seed)
    genes = TrainingGenes(learning_rate=1e-3, batch_size=32, weight_decay=weight_decay, schedule="constant")
    rows = []
    for epoch in range(0, _PLAIN_EPOCHS, 2):
        train(network, trainer.splits.train, genes, epochs=2, seed=1000 * seed + epoch)
        rows.append({"epochs": epoch + 2, "weight_decay": weight_decay, **errors(trainer, network)})
    return rows


def one(seed: int, share: float) -> dict[str, Any]:
    """All of one seed."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import prepare

    setup = prepare(load_config(CONFIG, [f"seed={seed}", "resources.executor=inline"]))
    setup.segment.experiment.prepare()
    trainer = Trainer(setup.segment.experiment)
    trainer.splits = with_wrong_labels(trainer.splits, share, seed)
    files = lineage(trainer, seed)
    decayed = {decay: plain(trainer, seed, decay) for decay in DECAYS}

    def best(rows: list[dict[str, float]]) -> dict[str, float]:
        return min(rows, key=lambda row: row["validation"])

    chosen = {
        "plain, to the end": decayed[0.0][-1],
        "early stopping": best(decayed[0.0]),
        "weight decay": best([rows[-1] for rows in decayed.values()]),
        "weight decay and early stopping": best([row for rows in decayed.values() for row in rows]),
        "few bits": best(files),
    }
    return {"seed": seed, "wrong": share, "files": files, "chosen": chosen}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sd of training and audit error, by share of wrong labels and method."""
    table: dict[str, Any] = {}
    for share in dict.fromkeys(run["wrong"] for run in runs):
        of_share = [run for run in runs if run["wrong"] == share]
        for method in of_share[0]["chosen"]:
            for split in ("train", "audit"):
                values = [run["chosen"][method][split] for run in of_share]
                sd = statistics.stdev(values) if len(values) > 1 else 0.0
                entry = {"mean": round(statistics.mean(values), 4), "sd": round(sd, 4)}
                table.setdefault(f"{share:g}", {}).setdefault(method, {})[split] = entry
        sizes = [run["chosen"]["few bits"]["nbytes"] for run in of_share]
        table[f"{share:g}"]["few bits"]["nbytes"] = statistics.median(sizes)
    return table


def draw(runs: list[dict[str, Any]], path: str) -> None:
    """Errors along the fronts, and what the others reach."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = list(dict.fromkeys(run["wrong"] for run in runs))
    figure, panels = pyplot.subplots(1, len(shares), figsize=(5.2 * len(shares), 4.2), squeeze=False)
    table = summary(runs)
    for panel, share in zip(panels[0], shares, strict=True):
        for place, run in enumerate(run for run in runs if run["wrong"] == share):
            sizes = [row["nbytes"] for row in run["files"]]
            for split, colour in (("train", "tab:orange"), ("audit", "tab:blue")):
                label = {"train": "training error", "audit": "audit error"}[split] if place == 0 else None
                values = [100 * row[split] for row in run["files"]]
                panel.plot(sizes, values, "o-", color=colour, alpha=0.7, markersize=3, linewidth=1, label=label)
        lines = (("plain, to the end", ":"), ("early stopping", "--"), ("weight decay and early stopping", "-."))
        for method, style in lines:
            value = 100 * table[f"{share:g}"][method]["audit"]["mean"]
            panel.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{method}: audit")
        highest = max(100 * row["audit"] for run in runs if run["wrong"] == share for row in run["files"])
        panel.set(xscale="log", xlabel="bytes of the file", ylabel="error, %", ylim=(0, min(1.05 * highest, 50)))
        title = "all labels right" if share == 0 else f"{100 * share:.0f} % of training labels drawn at random"
        panel.set_title(title, fontsize=10)
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.0, 1 / 3])
    parser.add_argument("--picture", default="")
    options = parser.parse_args()
    runs = [one(seed, share) for share in options.wrong for seed in range(options.seeds)]
    if options.picture:
        draw(runs, options.picture)
    print(json.dumps({"benchmark": "overfitting", "seeds": options.seeds, "table": summary(runs), "runs": runs}))


if __name__ == "__main__":
    main()
