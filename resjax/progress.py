"""How far a long loop has come, on standard error: a line that renews itself on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def parts(count: int, size: int) -> list[range]:
    """Divide 0 ... count - 1 into ranges of `size`, the last maybe shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def tell(text: str) -> None:
    """Print a line, where there is something to say."""
    if text:
        print(text, file=sys.stderr, flush=True)


def shown(items: Iterable[Item], text: str, total: int, unit: int = 1) -> Iterator[Item]:
    """Pass the items on and tell of them, `unit` each; what is over within five seconds stays silent."""
    terminal = sys.stderr.isatty()
    start = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= (1 if terminal else 30) or (done == total and now - start > 5):
            told, rate = now, done / (now - start)
            left = (total - done) / rate
            line = f"{text}: {done * unit:,} of {total * unit:,}, {rate * unit:,.1f}/s, {left:,.0f} s left"
            print(f"\r\033[K{line}" if terminal else line, end="" if terminal and done < total else "\n",
                  file=sys.stderr, flush=True)
