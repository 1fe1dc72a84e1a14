"""What gRPC refuses, and when: a server in this process, whose service answers when it is let go."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
import grpc
from grpc import aio

from s2mlp_deploy.serving.service import grpc_server
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.grpc_messages import CLASSES, SERVICE
from s2mlp_deploy.serving.service.limits import BodyBudget
from s2mlp_deploy.serving.service.options import ServiceLimits


class Fake:
    """A service with the model ``m``."""

    def __init__(self, held: int = 10**6):
        self.limits, self.bodies = ServiceLimits(queue=1), BodyBudget(held)
        self.metrics = SimpleNamespace(answered=lambda *_: None)
        self.repository = SimpleNamespace(slots=(), served=self.served)
        self.go, self.full, self.running = asyncio.Event(), False, 0

    def served(self, name, version):
        if name != "m":
            raise RequestError("unknown", "there is no such model")
        return SimpleNamespace(name="m", version=version or "1", batcher=self)

    def check_room(self):
        if self.full:
            raise RequestError("busy", "the queue is full", retry_after=1)

    async def infer(self, name, version, asked, _timeout):
        self.running += 1
        await self.go.wait()
        return self.served(name, version), dict(asked.feeds), None


def message(model="m", size=2):
    made = CLASSES["ModelInferRequest"](model_name=model)
    made.inputs.add(name="x", datatype="FP32", shape=[size])
    made.raw_input_contents.append(np.zeros(size, np.float32).tobytes())
    return made.SerializeToString()


class Refused(Exception):  # noqa: N818 - As a call ends.
    """A call that was aborted."""


class Call:
    """The context of a call that has no deadline."""

    def invocation_metadata(self):
        return ()

    def time_remaining(self):
        return None

    def set_trailing_metadata(self, _): ...

    async def abort(self, code, text):
        raise Refused(f"{code.name}: {text}")


async def refusal(service, sent):
    handler = grpc_server.GrpcServer(service, None)._handler("ModelInfer")
    with pytest.raises(Refused) as caught:
        await handler.unary_unary(sent, Call())
    assert service.bodies.held == 0
    return str(caught.value)


def test_what_gets_no_result_is_refused_before_tensors_are_made(monkeypatch):
    monkeypatch.setattr(grpc_server, "decode", lambda _: pytest.fail("they were"))

    async def main():
        service = Fake()
        assert "NOT_FOUND" in await refusal(service, message("nope"))
        assert "INVALID_ARGUMENT: the message is no" in await refusal(service, b"\xff\xff")
        service.full = True
        assert "RESOURCE_EXHAUSTED: the queue is full" in await refusal(service, message())
        assert "RESOURCE_EXHAUSTED: the requests" in await refusal(Fake(held=10), message())

    asyncio.run(main())


def test_large_requests_are_read_beside_the_loop_and_count_while_they_last(monkeypatch):
    there, decode, loops = [], grpc_server.decode, []

    def seen(request):
        try:
            loops.append(asyncio.get_running_loop())
        except RuntimeError:
            there.append(request)
        return decode(request)

    monkeypatch.setattr(grpc_server, "decode", seen)

    async def main():
        service = Fake()
        handler = grpc_server.GrpcServer(service, None)._handler("ModelInfer")
        sent = message(size=50_000)
        call = asyncio.create_task(handler.unary_unary(sent, Call()))
        async with asyncio.timeout(5):
            while not service.running:
                await asyncio.sleep(0.001)
            assert service.bodies.held == len(sent)
            service.go.set()
            assert (await call).model_name == "m"
        assert service.bodies.held == 0
        assert (len(there), loops) == (1, [])

    asyncio.run(main())


def test_calls_beyond_the_bound_are_refused_and_a_second_stop_cuts_the_first(monkeypatch):
    monkeypatch.setattr(grpc_server, "_CALLS", 2)

    async def main():
        service = Fake()
        server = grpc_server.GrpcServer(service, None)
        port = await server.start("127.0.0.1", 0)
        async with asyncio.timeout(10), aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            running = [asyncio.ensure_future(ask(message())) for _ in range(2)]
            while service.running < 2:
                await asyncio.sleep(0.005)
            with pytest.raises(aio.AioRpcError) as caught:
                await ask(message())
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            stopping = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0.01)
            await server.stop(0)
            await stopping
            ended = await asyncio.gather(*running, return_exceptions=True)
            assert all(isinstance(error, aio.AioRpcError) for error in ended)

    asyncio.run(main())
