"""Engines: what runs the trials of a sweep, on this machine or on a cluster."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Event
from types import ModuleType
from typing import ClassVar

import torch

from pyro_vae.files.elsewhere import elsewhere
from pyro_vae.files.optional import optional
from pyro_vae.sweeps.trial import Crashed, Outcome, Trial, run_trial
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Engine", "Local", "Ray", "threads_of"]


class Engine(ABC):
    """What runs trials; ``takes_finished`` says whether it is given those that are done, too."""

    takes_finished: ClassVar[bool] = False

    @abstractmethod
    def run(self, trials: Iterable[Trial]) -> Iterator[Outcome]:
        """Run trials and yield what becomes of each as it ends.

        A trial is asked for only when there is room for it, so that a search can choose it by what
        came out of those before it; `Racing` asks for all at once.
        """


def threads_of(jobs: int) -> int:
    """How many threads each of several trials at once may have: their share of this process's.

    OMP_NUM_THREADS says how many that has, else it is the number of processors.
    """
    return max(1, torch.get_num_threads() // jobs)


@dataclass(frozen=True)
class Local(Engine):
    """Trials on this machine, one process after another or several at once.

    Args:
        jobs: how many at once; they share the processors.
        retries: how often a trial that was killed is run again.
    """

    jobs: int = 1
    retries: int = 2

    def __post_init__(self) -> None:
        check_count("jobs", self.jobs)
        check_count("retries", self.retries, minimum=0)

    def run(self, trials: Iterable[Trial]) -> Iterator[Outcome]:
        threads, ended = threads_of(self.jobs), Event()

        def attempts(trial: Trial) -> Outcome:
            for left in reversed(range(self.retries + 1)):
                try:
                    return run_trial(trial, threads, ended)
                except Crashed:
                    if not left or ended.is_set():
                        raise
            raise AssertionError("there is one attempt at least")

        pool = ThreadPoolExecutor(self.jobs)
        try:
            yield from pooled(lambda trial: pool.submit(attempts, trial), trials, self.jobs)
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Ray(Engine):
    """Trials as tasks of a Ray cluster, whose machines see the sweep's folder under one path.

    Args:
        address: the cluster's; by default that of RAY_ADDRESS, else one on this machine alone.
        cpus: processors of each trial.
        gpus: GPUs of each trial; a part of one is shared.
        retries: how often a trial whose process or machine is lost is run again.
        jobs: how many trials at once; by default as many as the cluster has room for.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    retries: int = 2
    jobs: int | None = None

    def __post_init__(self) -> None:
        check_count("cpus", self.cpus)
        check_count("retries", self.retries, minimum=0)
        if self.jobs is not None:
            check_count("jobs", self.jobs)

    @contextmanager
    def connected(self) -> Iterator[ModuleType]:
        """Ray, connected to the cluster.

        Raises:
            InvalidInput: if it is not installed, or the cluster does not answer.
        """
        ray = optional("ray", "sweep", "engine", "'ray', which is not installed")
        ours = not ray.is_initialized()
        # Without a name, Ray would ask for the last cluster of this machine, dead or alive.
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        if ours:
            try:
                with elsewhere():  # its processes look for modules where it was started
                    ray.init(address=address, log_to_driver=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidInput(
                    "address",
                    got=f"{address!r}, which cannot be reached ({error})",
                    expected="the address of a Ray cluster",
                    fix="start one with ray start --head, or leave --address out; where the "
                    "cluster has a token, give it to this process too (ray get-auth-token)",
                ) from None
        try:
            yield ray
        finally:
            if ours:
                ray.shutdown()

    def run(self, trials: Iterable[Trial]) -> Iterator[Outcome]:
        with self.connected() as ray:
            task = ray.remote(run_trial).options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_retries=self.retries,
                retry_exceptions=[Crashed],
            )
            room = int(ray.cluster_resources().get("CPU", 1)) // self.cpus
            yield from pooled(
                lambda trial: task.remote(trial, self.cpus).future(),
                trials,
                self.jobs or max(1, room),
            )


def pooled(
    start: Callable[[Trial], Future[Outcome]], trials: Iterable[Trial], at_once: int
) -> Iterator[Outcome]:
    """Keep a number of trials running; yield each as it ends."""
    left, running = iter(trials), dict[Future[Outcome], Trial]()
    while True:
        for trial in islice(left, at_once - len(running)):
            running[start(trial)] = trial
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield _outcome(running.pop(future), future)


def _outcome(trial: Trial, future: Future[Outcome]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(trial, " ".join((str(error) or type(error).__name__).split())[-300:])
