"""The files of examples/cluster: what each format asks of them, without a cloud, and that they fit together."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "cluster"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not run from a source tree")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["aws.yaml", "local.yaml"])
def test_configurations_of_ray_up_have_what_ray_asks_for(name: str) -> None:
    jsonschema, ray = pytest.importorskip("jsonschema"), importlib.util.find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("Ray is not installed")
    (config,) = documents(name)
    schema = json.loads(Path(ray.origin).with_name("autoscaler").joinpath("ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    types = config.get("available_node_types", {})
    assert config.get("head_node_type", "head") in {"head", *types}
    assert all(kind.get("max_workers", 0) <= config["max_workers"] for kind in types.values())
    for kind in ("head", "worker"):
        stop, start = config[f"{kind}_start_ray_commands"]
        assert stop.endswith("ray stop") and start.startswith("export RAY_AUTH_MODE=token; ")
        assert ("--head" in start) == ("--autoscaling-config=~/ray_bootstrap_config.yaml" in start) == (kind == "head")
    if config["provider"]["type"] == "local":
        assert config["max_workers"] == len(config["provider"]["worker_ips"])


def containers(group: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = group["template"]["spec"]["containers"]
    return found


def test_the_manifest_of_kuberay_fits_together() -> None:
    job, claim = documents("rayjob.yaml")
    assert (job["apiVersion"], job["kind"], claim["kind"]) == ("ray.io/v1", "RayJob", "PersistentVolumeClaim")
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    head = cluster["headGroupSpec"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    everything = [*containers(head), *containers(workers)]
    assert all(part["envFrom"] for part in everything)
    assert len({part["image"] for part in everything}) == 1
    volumes = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in everything[0]["volumeMounts"]} == set(volumes)
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    # As many segments as run.sh asks for have a place: more than that, and an autoscaler adds nodes one by one.
    cores = int(everything[1]["resources"]["limits"]["cpu"]) * workers["maxReplicas"]
    asked = re.search(r"resources\.workers=(\d+)", (FOLDER / "run.sh").read_text())
    assert asked and int(asked[1]) == cores


def test_one_version_of_ray_and_one_image() -> None:
    version = documents("rayjob.yaml")[0]["spec"]["rayClusterSpec"]["rayVersion"]
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{version}-" in dockerfile and f"ray[default]=={version}" in dockerfile
    image = documents("aws.yaml")[0]["docker"]["image"]
    assert image == containers(documents("rayjob.yaml")[0]["spec"]["rayClusterSpec"]["headGroupSpec"])[0]["image"]


def test_the_driver_s_script_is_one_that_a_shell_reads() -> None:
    subprocess.run(["sh", "-n", str(FOLDER / "run.sh")], check=True)
