"""The engines of a model as replicas of Ray Serve: it batches, routes, scales and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import ray
from ray import serve

from s2mlp_deploy.errors import ArtifactError, S2MLPDeployError
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.messages import (
    ANSWERS,
    LENGTH,
    QUESTIONS,
    Answer,
    Batch,
    Done,
    Item,
    Opened,
    Question,
    Refused,
    Setup,
    encode,
)
from s2mlp_deploy.serving.service.model import ServedModel
from s2mlp_deploy.serving.service.options import ServiceLimits
from s2mlp_deploy.text import first_line_of

_SHARE = 0.5
"""Cores that Ray reserves for a replica; Serve itself needs some of a small machine too."""

_NUMBERS = itertools.count()


@contextlib.contextmanager
def running_serve() -> Iterator[None]:
    """Ray Serve without its own HTTP; it ends with the block, if it did not run before."""
    there = _serves()
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
    # It sets its own level when it starts.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if not there:
            end: Any = serve.shutdown
            end()


def _serves() -> bool:
    return any(item["name"] == "SERVE_CONTROLLER_ACTOR" for item in ray.util.list_named_actors(all_namespaces=True))


class RayReplicas:
    """The replicas of a model; what the service asks in place of its own processes.

    Requests go to Ray Serve one by one, where they meet in ``@serve.batch``.

    Args:
        setup: What each of them opens.
        size: How many there are at least.
        most: How many there may be while requests wait.
        limits: Bounds of batches and queues.
    """

    def __init__(self, setup: Setup, size: int, most: int, limits: ServiceLimits) -> None:
        self._size, self._most, self._limits = size, max(size, most), limits
        # Where as many run as there may be, each has its share of the cores.
        self._setup = msgspec.structs.replace(setup, instances=self._most)
        self._name = f"s2mlp-deploy-{next(_NUMBERS)}-{time.time_ns():x}"
        self._handle: Any = None
        self.slots = self._most * limits.max_batch * 2
        self.reason = ""
        self.refused = False

    async def start(self) -> Opened:
        """Deploys the model and waits until a replica is warm.

        Raises:
            ArtifactError: It cannot be opened, or Ray cannot place it.
        """
        batch, delay = self._setup.max_batch, self._limits.max_delay
        deployment: Any = serve.deployment(
            _Replica,
            max_ongoing_requests=2 * batch,
            ray_actor_options={"num_cpus": _SHARE},
            autoscaling_config={
                "min_replicas": self._size,
                "max_replicas": self._most,
                # More wait than one batch that runs and half of the next: another replica pays.
                "target_ongoing_requests": max(1, math.ceil(1.5 * batch)),
            },
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        application = deployment.bind(_packed(self._setup), batch, delay)
        try:
            self._handle = await asyncio.to_thread(serve.run, application, name=self._name, route_prefix=None)
            answer = _unpacked_answer(await self._handle.opened.remote())
        except (ray.exceptions.RayError, RuntimeError) as error:
            await self.close()
            raise ArtifactError(
                f"Ray cannot deploy it: {first_line_of(error)}",
                where=self._setup.directory,
                fix="look at `serve status`, or use --engine-pool process",
            ) from error
        if isinstance(answer, Refused):
            await self.close()
            raise ArtifactError(answer.problem, where=self._setup.directory, fix=answer.fix)
        assert isinstance(answer, Opened)
        answer.max_rows = 1  # They share runs over there.
        return answer

    @property
    def alive(self) -> int:
        """Whether it is deployed: replicas that die are replaced by Ray."""
        return 0 if self._handle is None else self._size

    async def acquire(self) -> RayReplicas:
        """Ray chooses the replica."""
        return self

    async def release(self) -> None:
        """Nobody waits for one."""

    async def run(self, items: list[Item]) -> Done:
        """Runs requests.

        Raises:
            RequestError: The replica was lost.
        """
        answers = await asyncio.gather(*(self._one(item) for item in items))
        return Done(
            0,
            [outcome for answer in answers for outcome in answer.outcomes],
            max(answer.prepare for answer in answers),
            max(answer.infer for answer in answers),
        )

    async def _one(self, item: Item) -> Done:
        try:
            answer = _unpacked_answer(await self._handle.remote(_packed(Batch(0, [item]))))
        except ray.exceptions.RayError as error:
            raise RequestError(
                "unavailable", f"the replica was lost: {first_line_of(error)}", fix="try again", retry_after=1
            ) from error
        assert isinstance(answer, Done)
        return answer

    async def close(self) -> None:
        """Ends the replicas."""
        self._handle = None
        await asyncio.to_thread(serve.delete, self._name)


class _Replica:
    """What a replica does.

    Args:
        setup: What it opens, as a message.
        batch: Samples in a run.
        delay: Seconds that the first request waits for others.
    """

    def __init__(self, setup: bytes, batch: int, delay: float) -> None:
        start = time.monotonic()
        question = _unpacked_question(setup)
        assert isinstance(question, Setup)
        try:
            self._model = ServedModel(question)
            self._model.warm_up()
            self._opened: Answer = self._model.opened(time.monotonic() - start)
        except S2MLPDeployError as error:  # Told by `opened`: what is raised here Ray tries again and again.
            self._opened = Refused(error.problem, error.fix)
        most = self._opened.max_rows if isinstance(self._opened, Opened) else 1
        together: Any = self._together  # With the decorator's own methods.
        together.set_max_batch_size(min(batch, most))
        together.set_batch_wait_timeout_s(delay if most > 1 else 0.0)

    async def opened(self) -> bytes:
        """What it serves, or why it cannot."""
        return _packed(self._opened)

    async def __call__(self, request: bytes) -> bytes:
        """The result of one request, as messages."""
        answer: bytes = await self._together(request)
        return answer

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)  # type: ignore[untyped-decorator, unused-ignore]
    async def _together(self, requests: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self._run, requests)

    def _run(self, requests: list[bytes]) -> list[bytes]:
        items = []
        for request in requests:
            question = _unpacked_question(request)
            assert isinstance(question, Batch)
            items.append(question.items[0])
        start = time.monotonic()
        prepared = [(item, self._model.prepare(item)) for item in items]
        middle = time.monotonic()
        outcomes = self._model.run(prepared)
        end = time.monotonic()
        return [_packed(Done(0, [outcome], middle - start, end - middle)) for outcome in outcomes]


def _packed(message: Question | Answer) -> bytes:
    return bytes(encode(message)[LENGTH.size :])


def _unpacked_question(message: bytes) -> Question:
    return QUESTIONS.decode(message)


def _unpacked_answer(message: bytes) -> Answer:
    return ANSWERS.decode(message)
