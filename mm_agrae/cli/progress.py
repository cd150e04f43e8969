"""A progress bar for people; silent where the output is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # it needs torch, and a progress bar of data needs none
    from mm_agrae.train.session import Session


@contextmanager
def progress_bar(label: str, total: int | None, *, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts so many more items as done; a total of None is one that nobody knows."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def measuring(session: Session, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """The same while a set is measured: under the deadline of that phase, which begins anew with what is counted."""
    show = session.world.is_main
    with session.watch.phase("evaluate"), progress_bar(f"measuring {label}", total, show=show) as advance:

        def count(number: int) -> None:
            session.watch.get_on()
            advance(number)

        yield count
