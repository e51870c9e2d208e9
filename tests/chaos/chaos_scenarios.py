"""The faults of `make chaos`: each scenario is one run that is disturbed in one way, and a `Report`."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from chaos_cluster import Cluster, Node
from chaos_digits import DigitsRun
from chaos_mounts import can_mount, fill, mount_folder, tmpfs, unmount
from chaos_network import Cable, cable
from chaos_run import DisturbedRun, Report, Settings, closing
from chaos_store import FaultyProxy, packages, s3_server

__all__ = ["SCENARIOS", "Killer", "Skipped"]


class Skipped(Exception):
    """This machine cannot do it; the text says why."""


class Killer:
    """Kills and stops parts of a run, chosen by `rng`."""

    def __init__(self, run: DisturbedRun, cluster: Cluster, rng: random.Random) -> None:
        self.run, self.cluster, self.rng = run, cluster, rng

    def driver(self) -> None:
        """SIGKILL of the driver."""
        self.run.note("driver killed", ends_driver=True)
        self.run.kill_driver()

    def worker(self) -> None:
        """SIGKILL of a worker that runs a segment."""
        self._signal_worker("worker killed", signal.SIGKILL)

    def freeze_worker(self) -> None:
        """SIGSTOP of a worker that runs a segment."""
        self._signal_worker("worker stopped", signal.SIGSTOP)

    def driver_or_worker(self) -> None:
        """One of the two."""
        self.rng.choice([self.driver, self.worker])()

    def _signal_worker(self, kind: str, number: signal.Signals) -> None:
        deadline = time.monotonic() + 30
        while not (busy := [w for node in self.cluster.all_nodes() for w in node.busy_workers()]):
            if time.monotonic() > deadline or self.run.driver.poll() is not None:
                return
            self.run.sleep(0.02)
        worker = self.rng.choice(busy)
        with contextlib.suppress(psutil.Error):
            worker.send_signal(number)
            self.run.note(kind, [worker.pid])

    def node(self) -> None:
        """SIGKILL of a raylet that is not the driver's, with which its workers go."""
        node = self.rng.choice(self.cluster.nodes)
        pids = [worker.pid for worker in node.busy_workers()]
        if (raylet := node.raylet) is not None:
            raylet.kill()
            self.run.note("node killed", pids)

    def replaced_node(self) -> None:
        """The same; after a while another node takes its place."""
        self.node()
        self.run.sleep(self.rng.uniform(0, 3))
        for node in [node for node in self.cluster.nodes if node.raylet is None]:
            self.cluster.remove(node)
            self.cluster.add()

    def drained_node(self) -> None:
        """A notice that a node will be taken away, after which it gets no segments; then its SIGKILL, and another."""
        node = self.rng.choice(self.cluster.nodes)
        self.cluster.drain(node)
        deadline = time.monotonic() + 30
        while node.busy_workers() and time.monotonic() < deadline:
            self.run.sleep(0.1)
        for _ in range(20):
            assert not node.busy_workers(), "a node that is to be taken away got a segment"
            self.run.sleep(0.1)
        self.run.note("node drained")
        self.cluster.remove(node)
        self.cluster.add()

    def freeze_node(self) -> None:
        """SIGSTOP of a raylet and its workers, then SIGCONT."""
        node = self.rng.choice(self.cluster.nodes)
        self._for_a_while(
            "node stopped", node, lambda: node.signal(signal.SIGSTOP), lambda: node.signal(signal.SIGCONT)
        )

    def cut_off_node(self, cable: Cable) -> None:
        """Nothing goes to or from a node, then it does again."""
        self._for_a_while("node cut off", self.cluster.nodes[0], cable.cut, cable.mend)

    def _for_a_while(self, kind: str, node: Node, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """For less or longer than it takes a node to be given up."""
        self.run.note(kind, [worker.pid for worker in node.busy_workers()])
        begin()
        self.run.sleep(self.rng.choice([1.0, 6.0]))
        end()
        self.run.sleep(3.0)
        if node.raylet is None:  # it was given up, heard so, and ended
            self.cluster.remove(node)
            self.cluster.add()

    def head(self) -> None:
        """SIGKILL of the head."""
        self.run.note("head killed", ends_driver=True)
        self.cluster.kill_head()

    def raylet_of_driver(self) -> None:
        """SIGKILL of the raylet that the driver speaks to."""
        assert self.cluster.head is not None
        if (raylet := self.cluster.head.raylet) is not None:
            self.run.note("its raylet killed", ends_driver=True)
            raylet.kill()


@contextlib.contextmanager
def _on_ray(folder: Path, rng: random.Random, settings: Settings, nodes: int = 2) -> Iterator[Killer]:
    with Cluster(nodes) as cluster:
        run = DisturbedRun(folder, settings, address=lambda: cluster.address, variables=lambda: cluster.variables)
        with closing(run):
            yield Killer(run, cluster, rng)


def _by(action: str, times: int, settings: Settings, every: tuple[float, float]) -> Callable[..., Report]:
    """A scenario that does one thing to a run again and again, at random instants."""

    def scenario(name: str, folder: Path, rng: random.Random) -> Report:
        with _on_ray(folder, rng, settings) as killer:
            inject = getattr(killer, action)
            killer.run.drive(inject, rng=rng, times=times, every=every, while_starting=action == "driver")
            return killer.run.report(name)

    return scenario


def _cut_off_node(name: str, folder: Path, rng: random.Random) -> Report:
    """A node in a network namespace of its own; what it stored while nobody heard of it may be there already."""
    with cable() as laid:
        if laid is None:
            raise Skipped("a network namespace needs root, and the command ip")
        with Cluster(1, cable=laid) as cluster:
            run = DisturbedRun(folder, _LIMITED, address=lambda: cluster.address, variables=lambda: cluster.variables)
            killer = Killer(run, cluster, rng)
            with closing(run):
                run.drive(lambda: killer.cut_off_node(laid), rng=rng, times=3, every=(0.5, 1.5))
                return run.report(name)


def _new_cluster(name: str, folder: Path, rng: random.Random, action: str, segments: int) -> Report:
    """What all hangs on is killed: the driver stops, the cluster is begun anew, and the run goes on.

    It is killed when so many segments have ended; with 0 that is mostly while the driver joins the cluster.
    """
    with _on_ray(folder, rng, Settings(segments=60), nodes=1) as killer:

        def inject() -> None:
            deadline = time.monotonic() + 120
            while len(killer.run.ended) < segments and time.monotonic() < deadline:
                killer.run.sleep(0.1)
            getattr(killer, action)()

        killer.run.drive(inject, rng=rng, times=1, before_resume=killer.cluster.begin)
        return killer.run.report(name)


def _frozen_driver(name: str, folder: Path, rng: random.Random) -> Report:
    """Two drivers as of two machines (host names of their own): the first is frozen, overtaken, and wakes."""
    if not can_mount():
        raise Skipped("a second host name needs root")
    run = DisturbedRun(folder, Settings(segments=40, seconds=1.0))

    def freeze() -> None:
        first = run.driver
        run.note("driver frozen and woken")
        first.send_signal(signal.SIGSTOP)
        words = ("unshare", "--uts", "sh", "-c", 'hostname chaos-second; exec "$@"', "sh")
        second = run.begin(words)
        deadline = time.monotonic() + 120
        while not run.opened and second.poll() is None and time.monotonic() < deadline:
            run.sleep(0.2)
        run.sleep(rng.uniform(0.0, 3.0))
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) == 1, "the driver that was overtaken goes on"

    with closing(run):
        run.drive(freeze, rng=rng, times=1)
        return run.report(name)


def _racing_drivers(name: str, folder: Path, rng: random.Random) -> Report:
    """The driver is killed, and three want the run at once: one gets it, the others are refused."""
    run = DisturbedRun(folder, Settings(segments=60, seconds=0.1))

    def race() -> None:
        run.note("driver killed, three others begun at once")
        run.kill_driver()
        racing = [(run.begin(), run.output) for _ in range(3)]
        deadline = time.monotonic() + 60
        while sum(driver.poll() is None for driver, _ in racing) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        alive = [pair for pair in racing if pair[0].poll() is None]
        refused = [output.read_text() for driver, output in racing if driver.poll() not in (None, 0)]
        assert len(alive) <= 1 and len(refused) == 3 - len(alive)
        assert all("is held by pid" in words or "already holds a run" in words for words in refused), refused
        if alive:  # the one that has it is the newest from now on
            index = next(n for n, driver in enumerate(run.drivers) if driver is alive[0][0])
            run.drivers.append(run.drivers.pop(index))
            alive[0][1].rename(run.output.with_suffix(".winner"))
            run.output.unlink(missing_ok=True)
            run.output.with_suffix(".winner").rename(run.output)

    with closing(run):
        run.drive(race, rng=rng, times=5, every=(0.3, 1.5))
        return run.report(name)


def _full_disk(name: str, folder: Path, rng: random.Random, place: str) -> Report:
    """A tmpfs that fills up and is emptied after a while: the run folder's, or that of storage alone."""
    if not can_mount():
        raise Skipped("to mount a tmpfs needs root")
    disk = folder / "disk"
    with tmpfs(disk, 8):
        with Cluster(1) as cluster:
            run = DisturbedRun(
                folder,
                Settings(segments=40),
                address=lambda: cluster.address,
                variables=lambda: cluster.variables,
                run_folder=disk / "run" if place == "run" else None,
                storage="" if place == "run" else str(disk / "files"),
            )

            def full() -> None:
                run.note("disk full")
                fill(disk / "ballast")
                run.sleep(rng.uniform(1.0, 4.0))
                (disk / "ballast").unlink()

            with closing(run):
                run.drive(full, rng=rng, times=3, every=(0.5, 2.0), before_resume=lambda: time.sleep(0.5))
                return run.report(name)


def _unmounted(name: str, folder: Path, rng: random.Random, place: str) -> Report:
    """What lies at a mount point goes away, the empty folder below it is there, and then it comes back."""
    if not can_mount():
        raise Skipped("to mount needs root")
    disk, point = folder / "disk", folder / "mounted"
    for path in (disk, point):
        path.mkdir(parents=True)
    mount_folder(disk, point)
    try:
        with Cluster(1) as cluster:
            run = DisturbedRun(
                folder,
                Settings(segments=60),
                address=lambda: cluster.address,
                variables=lambda: cluster.variables,
                run_folder=point if place == "run" else None,
                storage="" if place == "run" else str(point),
            )

            def pull() -> None:
                run.note(f"{place} unmounted")
                unmount(point)
                run.sleep(rng.uniform(0.5, 4.0))
                mount_folder(disk, point)

            with closing(run):
                run.drive(pull, rng=rng, times=4, every=(0.5, 2.0))
                return run.report(name)
    finally:
        unmount(point)


def _faulty_store(name: str, folder: Path, rng: random.Random, kill: bool = False) -> Report:
    """Storage in S3, whose requests meet faults: three of ten; with `kill` its drivers and workers do, too."""
    found = packages()
    if found is None:
        raise Skipped("it needs moto and s3fs in folders of their own, which `make chaos` makes")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(found[1]))))
    with s3_server(folder) as port, FaultyProxy(port, rng.randrange(1 << 30)) as proxy:
        variables = {**keys, "PYTHONPATH": path, "FSSPEC_S3_ENDPOINT_URL": proxy.url}
        with Cluster(1, variables) as cluster:
            run = DisturbedRun(
                folder,
                Settings(segments=40, seconds=0.1),
                address=lambda: cluster.address,
                variables=lambda: cluster.variables,
                storage="s3://chaos/run",
            )
            killer = Killer(run, cluster, rng)
            proxy.hear, proxy.rate = run.note, 0.3
            with closing(run):
                run.drive(killer.driver_or_worker, rng=rng, times=4 if kill else 0, every=(2.0, 6.0))
                proxy.rate = 0.0
                return run.report(name)


def _wrong_clocks(name: str, folder: Path, rng: random.Random) -> Report:
    """Each driver has another time of day, years from the others, and jumps; drivers are killed meanwhile."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise Skipped("it needs the library libfaketime (apt install libfaketime)")
    clock = folder / "clock"

    def jump() -> None:
        clock.write_text(rng.choice(["+0", "-3d", "+400d", "-90m", "+2h x1.5", "-1y", "+7d x0.5"]))

    jump()
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with Cluster(1) as cluster:
        run = DisturbedRun(
            folder,
            Settings(segments=60),
            address=lambda: cluster.address,
            variables=lambda: cluster.variables | fake,
        )
        killer = Killer(run, cluster, rng)

        def inject() -> None:
            jump()
            run.note("clock set")
            if rng.random() < 0.5:
                killer.driver()

        with closing(run):
            run.drive(inject, rng=rng, times=8)
            return run.report(name)


def _digits(name: str, folder: Path, rng: random.Random) -> Report:
    """A real run, whose driver and workers are killed, in the audit and the export too."""
    with Cluster(1) as cluster:
        run = DigitsRun(
            folder,
            Settings(),
            address=lambda: cluster.address,
            variables=lambda: cluster.variables | {"COLUMNS": "1000"},  # so that an error is one line
        )
        killer = Killer(run, cluster, rng)
        with closing(run):
            run.drive(killer.driver_or_worker, rng=rng, times=5, every=(3.0, 12.0))
            return run.report(name)


_SHORT = Settings(segments=60, seconds=0.3)
_LIMITED = Settings(segments=40, seconds=0.3, time_limit=3.0)

#: Name to a function of name, an empty folder and random numbers.
SCENARIOS: dict[str, Callable[[str, Path, random.Random], Report]] = {
    "driver killed": _by("driver", 12, _SHORT, (0.1, 5.0)),
    "worker killed": _by("worker", 8, _SHORT, (0.3, 1.5)),
    "worker stopped": _by("freeze_worker", 3, _LIMITED, (0.5, 2.0)),
    "node killed": _by("replaced_node", 3, _SHORT, (0.5, 1.5)),
    "node drained": _by("drained_node", 2, _SHORT, (0.5, 1.5)),
    "node stopped": _by("freeze_node", 3, _LIMITED, (0.5, 1.5)),
    "node cut off": _cut_off_node,
    "head killed while a driver joins": functools.partial(_new_cluster, action="head", segments=0),
    "head killed": functools.partial(_new_cluster, action="head", segments=10),
    "driver's raylet killed while it joins": functools.partial(_new_cluster, action="raylet_of_driver", segments=0),
    "driver's raylet killed": functools.partial(_new_cluster, action="raylet_of_driver", segments=10),
    "drivers racing": _racing_drivers,
    "driver frozen and overtaken": _frozen_driver,
    "run folder's disk full": functools.partial(_full_disk, place="run"),
    "storage's disk full": functools.partial(_full_disk, place="storage"),
    "storage unmounted": functools.partial(_unmounted, place="storage"),
    "run folder unmounted": functools.partial(_unmounted, place="run"),
    "faulty store": _faulty_store,
    "faulty store, kills": functools.partial(_faulty_store, kill=True),
    "wrong clocks": _wrong_clocks,
    "digits, kills": _digits,
}
