"""What a request means, whatever way it came: HTTP and gRPC both ask here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from s2mlp_deploy import __version__
from s2mlp_deploy.serving.service.batcher import Phases
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.limits import BodyBudget
from s2mlp_deploy.serving.service.messages import Fault, Item, Outcome, packed
from s2mlp_deploy.serving.service.metrics import Metrics
from s2mlp_deploy.serving.service.options import ServiceLimits
from s2mlp_deploy.serving.service.protocol import (
    EXTENSIONS,
    Feeds,
    InferRequest,
    check_feeds,
    check_outputs,
    tensor_metadata,
)
from s2mlp_deploy.serving.service.repository import Repository, Served

LOG = logging.getLogger(__name__)

SERVER = "s2mlp-deploy"


class Service:
    """The models, the bounds and the counters.

    Args:
        repository: The models.
        limits: The bounds.
        metrics: The counters.
    """

    def __init__(self, repository: Repository, limits: ServiceLimits, metrics: Metrics) -> None:
        self.repository, self.limits, self.metrics = repository, limits, metrics
        self.bodies = BodyBudget(limits.max_bodies)
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: every model answers, and the service does not end."""
        return not self.draining and self.repository.ready

    def why_not_ready(self) -> list[str]:
        """What is wrong, one sentence a model."""
        told = ["the service ends"] if self.draining else []
        return told + [
            f"{slot.name} version {slot.version} is {slot.state}: {slot.reason or 'wait'}"
            for slot in self.repository.slots
            if slot.state != "ready"
        ]

    def server_metadata(self) -> dict[str, Any]:
        """The protocol's description of the server."""
        return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """The protocol's description of a model.

        Raises:
            RequestError: There is no such model, or it is not ready.
        """
        served = self.repository.served(name, version)
        return {
            "name": served.name,
            "versions": self.repository.versions(name),
            "platform": f"{SERVER}_{served.opened.engine.split()[0]}",
            "inputs": [tensor_metadata(info) for info in served.opened.inputs],
            "outputs": [tensor_metadata(info) for info in served.opened.outputs],
        }

    def model_ready(self, name: str, version: str | None) -> bool:
        """Whether a model answers.

        Raises:
            RequestError: There is no such model.
        """
        return not self.draining and self.repository.slot(name, version).state == "ready"

    async def infer(
        self, model: str, version: str | None, request: InferRequest, timeout: float
    ) -> tuple[Served, Feeds, Phases]:
        """Outputs of a model.

        Args:
            model: Its name.
            version: Of it; None for the newest.
            request: What is asked of it.
            timeout: Seconds that it may take from now.

        Returns:
            What answered, the outputs that were asked for, in that order, and where the time went.

        Raises:
            RequestError: The request does not fit the model, or there is no result.
        """
        # Looked up now and not when the request began to come: nothing is awaited between here and the queue, so that
        # a version that is being replaced gets no request after its last one.
        served = self.repository.served(model, version)
        check_feeds(served.opened.inputs, served.opened.limits, request.feeds)
        wanted = check_outputs(served.opened.outputs, request.outputs)
        first = next(iter(request.feeds.values()))
        rows = first.shape[0] if first.ndim else 1
        key = tuple((name, array.shape[1:]) for name, array in sorted(request.feeds.items()))
        item = Item(feeds={name: packed(array) for name, array in request.feeds.items()}, outputs=wanted)
        outcome, phases = await self._submit(served, item, rows, key, timeout)
        self.metrics.ran("infer", served.name, phases)
        assert outcome.outputs is not None
        return served, {name: tensor.array() for name, tensor in outcome.outputs.items()}, phases

    async def classify(
        self, model: str, version: str | None, image: bytes, top: int, timeout: float
    ) -> tuple[Served, Outcome, Phases]:
        """The best classes of an image.

        Args:
            model: Its name.
            version: Of it; None for the newest.
            image: The bytes of an image file.
            top: How many classes.
            timeout: Seconds that it may take from now.

        Raises:
            RequestError: It is no image, the model does not classify, or there is no result.
        """
        served = self.repository.served(model, version)
        if served.opened.classifies:
            raise RequestError("unsupported", served.opened.classifies, fix="send tensors to .../infer")
        item = Item(image=memoryview(image), top=top)
        outcome, phases = await self._submit(served, item, 1, "image", timeout)
        self.metrics.ran("classify", served.name, phases)
        return served, outcome, phases

    async def _submit(
        self, served: Served, item: Item, rows: int, key: object, timeout: float
    ) -> tuple[Outcome, Phases]:
        outcome, phases = await served.batcher.submit(item, rows, key if served.opened.max_rows > 1 else None, timeout)
        if outcome.fault is not None:
            raise _error_of(outcome.fault)
        return outcome, phases

    async def watch(self, every: float) -> None:
        """Loads the models, then looks for new ones for ever.

        Args:
            every: Seconds between looks; 0: only once.
        """
        while True:
            try:
                await self.repository.refresh()
            except Exception as error:  # What answers goes on, and the next look may find it mended.
                if every <= 0:
                    raise
                LOG.error("looking for new files failed", exc_info=error)
            if every <= 0:
                return
            await asyncio.sleep(every)


def _error_of(fault: Fault) -> RequestError:
    return RequestError(fault.kind, fault.problem, fix=fault.fix)  # type: ignore[arg-type] # Written by ours.
