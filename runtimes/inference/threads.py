"""Work beside work: items that a thread makes ahead of who takes them, and items that a thread works off behind who gives them.

The queues are bounded, keep the order, and end at once when either side does: an error of the thread comes out where items are
taken or given, and leaving the block by an error or an interruption ends the thread before anything it uses is closed.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Queue(Generic[T]):
    """A bounded queue that either side can close."""

    def __init__(self, depth: int) -> None:
        self._items: collections.deque[T] = collections.deque()
        self._depth, self._changed = depth, threading.Condition()
        self._closed = self._ended = False
        self.error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Waits for room; False where nobody takes items any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def end(self) -> None:
        """No more items come; what is there can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Whatever is there is dropped."""
        with self._changed:
            self._closed, self.error = True, error or self.error
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items as they come, until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._ended or self._items)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Gives an iterator over ``items``, which a thread makes up to ``depth`` ahead.

    Raises:
        What making them raises, where the next item would have come.
    """
    queue = _Queue[T](depth)

    def make() -> None:
        try:
            for item in items:
                if not queue.put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that takes
            queue.error = error
        finally:
            queue.end()

    thread = threading.Thread(target=make, name="rsedge-ahead", daemon=True)
    thread.start()
    try:
        yield iter(queue)
    finally:
        queue.close()
        thread.join()


@contextlib.contextmanager
def behind(work: Callable[[T], object], depth: int) -> Iterator[Callable[[T], None]]:
    """Gives a function that hands an item to a thread, which does ``work`` on one after the other; all is done after the block.

    Raises:
        What ``work`` raises, with the next item or at the end of the block.
    """
    queue = _Queue[T](depth)

    def run() -> None:
        try:
            for item in queue:
                work(item)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that gives
            queue.close(error)

    def give(item: T) -> None:
        if not queue.put(item) and queue.error is not None:
            raise queue.error

    thread = threading.Thread(target=run, name="rsedge-behind", daemon=True)
    thread.start()
    try:
        yield give
        queue.end()
        thread.join()
    finally:
        queue.close()
        thread.join()
    if queue.error is not None:
        raise queue.error
