"""Work done ahead in a thread, in order and with bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["ahead"]


def ahead(items: Iterable[Any], count: int) -> Iterator[Any]:
    """Yield the items in order, the next ones being made in a thread of their own.

    Only that thread takes from `items`; its exception is raised in its place in the order. At most
    `count` finished items wait.
    """
    items, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting = [pool.submit(next, items, end) for _ in range(max(1, count))]
        while (item := waiting.pop(0).result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:  # also when the caller stops early: nothing further is begun
        pool.shutdown(cancel_futures=True)
        if hasattr(items, "close"):
            items.close()
