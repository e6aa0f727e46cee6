"""Batches from encoded photographs, made ahead of time by Grain's workers; a batch is a function of (seed, step)."""

import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache, partial
from itertools import repeat
from multiprocessing import resource_tracker
from pathlib import Path
from shutil import disk_usage
from typing import Any, NamedTuple

import cv2
import grain
import jax
import numpy as np
from absl import flags

from resjax.data.decode import decode, dimensions
from resjax.data.image_files import ImageFiles
from resjax.data.preprocessing import cut, one_thread_each, random_box
from resjax.experiment import Photographs
from resjax.system.errors import BadInput, Lost, check

AHEAD = 2  # batches that each worker keeps ready
UNGUARDED = 75  # the exit code of a worker that found itself in a script that asks for workers as it is imported


class HostBatch(NamedTuple):
    """`pixels` uint8 `[batch, ..., height, width, 3]`, `labels` int32 and `broken` int64 `[batch]`.

    `broken` is the index of an unreadable image, whose place the one after it has taken; -1 for all others.
    """

    pixels: np.ndarray
    labels: np.ndarray
    broken: np.ndarray


def training_batches(files: ImageFiles, data: Photographs, seeds: Sequence[int], batch_size: int, steps: range,
                     share: tuple[int, int] = (0, 1)) -> AbstractContextManager[Iterator[HostBatch]]:
    """Open the training batches of `steps`: a fresh permutation every epoch, crops and flips included.

    The first of the two seeds (32 bits) decides the order of the images, the second how they are cropped and mirrored.
    `batch_size` images make the batch of all processes together, of which this one, by number and count the `share`,
    gets its own rows: the batch is the same for any number of processes and workers.
    """
    process, processes = share
    places = grain.MapDataset.range(steps.stop * batch_size)
    images = places.random_map(partial(example_at, files, data, seeds[0]), seed=seeds[1])
    batches = images.batch(batch_size // processes, batch_fn=stack_examples)[process::processes][steps.start:steps.stop]
    return open_workers(batches, data.workers, batch_size // processes * data.size**2 * 3)


def image_at(place: int, images: int, seed: int) -> int:
    """Return the image that a run visits at a place: in every epoch each once, in an order of that seed and epoch."""
    epoch, place = divmod(place, images)
    return int(epoch_order(images, seed, epoch)[place])


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Permute the images: by 64 random bits for each, which NumPy's Philox gives alike in all its versions."""
    return np.random.Philox(key=[seed, epoch]).random_raw(images).argsort(kind="stable")


def planned_batches(plan: Sequence[Any], make: Callable[[Any], Any], workers: int | None,
                    size: int = 0) -> AbstractContextManager[Iterator[Any]]:
    """Open `make(item)`, of at most `size` bytes, for every item of a plan, in its order."""
    return open_workers(grain.MapDataset.source(plan).map(make), workers, size)


@contextmanager
def open_workers(batches: grain.MapDataset, workers: int | None, size: int = 0) -> Iterator[Iterator[Any]]:
    """Let `workers` processes make the elements, by default one a core, and end them afterwards.

    Where it is 0, or the elements are so few that they are made before a process has begun, threads of this one do.
    Raises BadInput where elements of `size` bytes, as far as that is known, do not fit into the shared memory.
    """
    leave_import()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if workers is None else workers
    workers = workers if len(batches) > AHEAD * workers else 0
    if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, which only an absl program parses
        flags.FLAGS.mark_as_parsed()
    threads = grain.ReadOptions(num_threads=1 if workers else cores, prefetch_buffer_size=1 if workers else AHEAD)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    if workers:
        check_shared_memory(workers, size)
        start_tracker()
    source = [iter(batches.to_iter_dataset(threads).mp_prefetch(options, worker_init_fn=follow_parent))]
    try:
        with one_thread_each():
            yield map(lambda _: jax.tree.map(copy_out, fetched(source[0])), repeat(None))  # a generator keeps arrays
    finally:
        source.pop().close()
        time.sleep(0.1)  # for a thread of Grain's that gives back what was fetched and not given out
        if workers:
            gc.collect()  # Grain's semaphores: Python complains where a later collection begins in its own tracker


def check_shared_memory(workers: int, size: int, folder: Path = Path("/dev/shm")) -> None:
    """Raise BadInput where the batches that workers keep ready do not fit into the memory in which they hand them over.

    Each worker has `AHEAD` batches of `size` bytes ready and makes one more, and one is being taken over.
    """
    needed = (workers * (AHEAD + 1) + 1) * size
    free = disk_usage(folder).free if folder.is_dir() else needed
    fewer = int(max(0, free / max(size, 1) - 1) // (AHEAD + 1))
    check(needed <= free, f"{folder}: {free / 2**20:.0f} MB are free, and {workers} processes that decode hand over "
                          f"batches through it that take {needed / 2**20:.0f} MB: let it be larger (Docker: --shm-size "
                          f"{-(-needed // 2**30)}g), or take --data.workers {fewer} or a smaller batch")


def fetched(iterator: Iterator[Any]) -> Any:
    """Return the next element. Raises Lost where a worker has died, BadInput where it runs the user's whole script."""
    try:
        return next(iterator)
    except RuntimeError as error:
        code = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))  # Grain has no class for it
        if code is None:
            raise
    if int(code[1]) == UNGUARDED:
        raise BadInput(f"{sys.argv[0]}: each process that decodes images begins by importing this script, and it "
                       "starts to work at once; put what it does under: if __name__ == \"__main__\":") from None
    died = f"was ended by {signal.Signals(-int(code[1])).name}" if int(code[1]) < 0 else f"has failed ({code[1]})"
    often = ", as the system does where memory ends: fewer data.workers need less" * (int(code[1]) == -signal.SIGKILL)
    raise Lost(f"a process that decodes images {died}{often}. The same command resumes from what is saved") from None


def leave_import() -> None:
    """End a worker that comes here while it imports the user's script: `fetched`, in the process above, says why."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # by which Python itself knows it
        os._exit(UNGUARDED)


def start_tracker() -> None:
    """Start the process by which Python removes shared memory that a killed worker has left, so that it does not tell.

    Its warnings come after the last line of ours; an option of the user's still lets them through.
    """
    sys.warnoptions.insert(0, "ignore:resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop(0)


def copy_out(leaf: Any) -> Any:
    """Copy an array out of the memory that is shared with the workers, which is then free for the next.

    Grain would leave it to a thread to give the memory back as the array is deleted, while Python may be closing it
    too: one of the two then fails, and the memory stays until the program ends.
    """
    if type(leaf).__name__ != "SharedMemoryArray":  # a class that Grain does not export
        return leaf
    copy = np.array(leaf)
    leaf._unlink_on_del = False
    leaf.shm.close()
    leaf.shm.unlink()
    return copy


def follow_parent(worker: int, workers: int) -> None:
    """Leave signals that a shell or a cluster sends to all to the training process; end when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # there is a worker for each core
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def example_at(files: ImageFiles, data: Photographs, seed: int, place: int, random: np.random.Generator) -> HostBatch:
    """Make the example of a place, of which `image_at` tells the image."""
    return training_example(files, data, image_at(place, len(files.labels), seed), random)


def training_example(files: ImageFiles, data: Photographs, index: int, random: np.random.Generator) -> HostBatch:
    """Read, crop and mirror one image; where it is unreadable, the next one instead.

    Raises BadInput where more in a row are unreadable than `data.broken_images` allows, as on a drive that is gone.
    """
    first, tries = index, data.broken_images + 2  # the one that is too many is named by whoever takes the batch
    for index in (place % len(files.labels) for place in range(first, first + tries)):
        with suppress(BadInput):
            encoded, name = files.read(index), files.name(index)
            height, width = dimensions(encoded, name)
            box = random_box(height, width, data, random)
            least = int(np.ceil(min(height, width) * data.size / min(box.height, box.width)))
            image = decode(encoded, name, least=least)
            break
    else:
        raise BadInput(f"{files.name(first)} and the images after it are unreadable, {tries} in a row, and "
                       f"data.broken-images allows {data.broken_images}")
    scale = len(image) / height
    pixels = cut(image, box._replace(**{side: value * scale for side, value in box._asdict().items()}), data.size)
    if data.flip and random.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    return HostBatch(pixels, files.labels[index], np.array(-1 if index == first else first))


def stack_examples(examples: Sequence[HostBatch]) -> HostBatch:
    """Put examples together."""
    return HostBatch(*map(np.stack, zip(*examples, strict=True)))
