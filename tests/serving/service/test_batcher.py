"""The queue and what shares a run."""

from __future__ import annotations

import asyncio
import time

import pytest

from s2mlp_deploy.serving.service.batcher import Batcher
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.messages import Done, Item, Outcome


class Fake:
    """A runner that waits to be let go, and remembers what it was given."""

    def __init__(self, slots: int = 1, seconds: float = 0.0) -> None:
        self.slots, self.seconds = slots, seconds
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def acquire(self) -> Fake:
        await self.go.wait()
        return self

    async def release(self) -> None: ...

    async def run(self, items: list[Item]) -> Done:
        self.batches.append([item.top for item in items])
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Done(0, [Outcome(classes=(str(item.top),)) for item in items], 0.0, 0.5)


def batcher(fake: Fake, **changes) -> Batcher:
    return Batcher(fake, **({"max_rows": 4, "max_delay": 0.01, "bound": 100} | changes))


async def submit(queue: Batcher, number: int, rows: int = 1, key: object = "k", timeout: float = 5.0) -> str:
    outcome, _ = await queue.submit(Item(top=number), rows, key, timeout)
    return outcome.classes[0]


def test_requests_that_come_together_share_a_run_in_their_order():
    async def main():
        fake = Fake()
        queue = batcher(fake)
        found = await asyncio.gather(*(submit(queue, n) for n in range(6)))
        assert found == [str(n) for n in range(6)]
        assert fake.batches == [[0, 1, 2, 3], [4, 5]]
        await queue.close()

    asyncio.run(main())


def test_rows_count_and_a_large_request_runs_alone():
    async def main():
        fake = Fake()
        queue = batcher(fake)
        await asyncio.gather(submit(queue, 0, 3), submit(queue, 1, 3), submit(queue, 2, 1), submit(queue, 3, 9))
        assert fake.batches == [[0, 2], [1], [3]]
        await queue.close()

    asyncio.run(main())


def test_other_shapes_and_what_cannot_join_run_apart():
    async def main():
        fake = Fake()
        queue = batcher(fake)
        keys = ["a", "b", "a", None, None]
        await asyncio.gather(*(submit(queue, n, key=key) for n, key in enumerate(keys)))
        assert fake.batches == [[0, 2], [1], [3], [4]]
        await queue.close()

    asyncio.run(main())


def test_the_first_waits_no_longer_than_it_may():
    async def main():
        fake = Fake()
        queue = batcher(fake, max_delay=0.3)
        start = time.monotonic()
        await submit(queue, 0)
        assert 0.29 < time.monotonic() - start < 10
        start = time.monotonic()
        await submit(queue, 1, rows=4)  # Full: nobody is waited for.
        assert time.monotonic() - start < 0.29
        await queue.close()

    asyncio.run(main())


def test_a_full_queue_refuses_and_says_when_to_come_again():
    async def main():
        fake = Fake()
        fake.go.clear()
        queue = batcher(fake, bound=3)
        tasks = [asyncio.create_task(submit(queue, n)) for n in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(RequestError) as caught:
            await submit(queue, 9)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        fake.go.set()
        assert await asyncio.gather(*tasks) == ["0", "1", "2"]
        queue._seconds_a_row = 2.5
        fake.go.clear()
        tasks = [asyncio.create_task(submit(queue, n)) for n in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(RequestError) as caught:
            queue.check_room()
        assert caught.value.retry_after == 8
        fake.go.set()
        await asyncio.gather(*tasks)
        await queue.close()

    asyncio.run(main())


def test_whoever_is_cancelled_or_late_leaves_the_queue():
    async def main():
        fake = Fake()
        fake.go.clear()
        queue = batcher(fake)
        gone = asyncio.create_task(submit(queue, 0))
        stays = asyncio.create_task(submit(queue, 1))
        late = asyncio.create_task(submit(queue, 2, timeout=0.05))
        await asyncio.sleep(0.02)
        gone.cancel()
        with pytest.raises(RequestError) as caught:
            await late
        assert caught.value.status == 504
        assert queue.waiting == 1
        fake.go.set()
        assert await stays == "1"
        assert fake.batches == [[1]]
        await queue.close()

    asyncio.run(main())


def test_whoever_is_cancelled_when_a_batch_is_taken_keeps_nobody_from_draining():
    async def main():
        fake = Fake()
        fake.go.clear()
        queue = batcher(fake, max_delay=0)
        gone = asyncio.create_task(submit(queue, 0))
        await asyncio.sleep(0.02)
        fake.go.set()  # The queue looks before the one that is cancelled knows of it.
        gone.cancel()
        await asyncio.wait_for(queue.drain(), 1)
        assert fake.batches == []
        await queue.close()

    asyncio.run(main())


def test_a_failed_run_fails_its_own_requests_and_no_others():
    async def main():
        fake = Fake()
        queue = batcher(fake)
        fake.error = RequestError("unavailable", "the process died")
        results = await asyncio.gather(*(submit(queue, n) for n in range(2)), return_exceptions=True)
        assert [str(result) for result in results] == ["the process died"] * 2
        fake.error = None
        assert await submit(queue, 3) == "3"
        await queue.close()

    asyncio.run(main())


def test_draining_waits_for_all():
    async def main():
        fake = Fake(seconds=0.05)
        queue = batcher(fake, max_rows=1)
        tasks = [asyncio.create_task(submit(queue, n)) for n in range(3)]
        await asyncio.sleep(0)
        await queue.drain()
        assert fake.batches == [[0], [1], [2]]
        assert queue.waiting == 0
        assert await asyncio.gather(*tasks) == ["0", "1", "2"]
        await queue.close()

    asyncio.run(main())


def test_closing_tells_those_who_wait():
    async def main():
        fake = Fake()
        fake.go.clear()
        queue = batcher(fake)
        task = asyncio.create_task(submit(queue, 0))
        await asyncio.sleep(0.02)
        await queue.close()
        with pytest.raises(RequestError, match="the service ends"):
            await task

    asyncio.run(main())
