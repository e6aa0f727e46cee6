"""Streams batches of photographs, which Grain's workers prefetch. Each batch is a function of the seed and the step."""

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

AHEAD = 2  # batches that each worker prefetches
UNGUARDED = 75  # exit code of a worker that would start workers again by importing the user's script


class HostBatch(NamedTuple):
    """A batch: `pixels` uint8 `[batch, ..., height, width, 3]`, `labels` int32 and `broken` int64 `[batch]`.

    `broken` is the index of an unreadable image that was replaced by the next image, or -1.
    """

    pixels: np.ndarray
    labels: np.ndarray
    broken: np.ndarray


def training_batches(files: ImageFiles, data: Photographs, seeds: Sequence[int], batch_size: int, steps: range,
                     share: tuple[int, int] = (0, 1)) -> AbstractContextManager[Iterator[HostBatch]]:
    """Open the training batches of `steps`: a new permutation every epoch, crops and flips included.

    The first of the two 32-bit seeds determines the order of the images, and the second determines their crops and
    flips. `batch_size` is the global batch size. `share` is this process's index and the number of processes. Each
    process gets only its own rows of the batch, which does not depend on the number of processes and workers.
    """
    process, processes = share
    places = grain.MapDataset.range(steps.stop * batch_size)
    images = places.random_map(partial(example_at, files, data, seeds[0]), seed=seeds[1])
    batches = images.batch(batch_size // processes, batch_fn=stack_examples)[process::processes][steps.start:steps.stop]
    return open_workers(batches, data.workers, batch_size // processes * data.size**2 * 3)


def image_at(place: int, images: int, seed: int) -> int:
    """Return the image at a position; each epoch visits every image once, in an order given by the seed."""
    epoch, place = divmod(place, images)
    return int(epoch_order(images, seed, epoch)[place])


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Draw a permutation by sorting 64 random bits per image. NumPy's Philox returns the same bits in all versions."""
    return np.random.Philox(key=[seed, epoch]).random_raw(images).argsort(kind="stable")


def planned_batches(plan: Sequence[Any], make: Callable[[Any], Any], workers: int | None,
                    size: int = 0) -> AbstractContextManager[Iterator[Any]]:
    """Compute `make(item)`, of at most `size` bytes, for every item of a plan, in order."""
    return open_workers(grain.MapDataset.source(plan).map(make), workers, size)


@contextmanager
def open_workers(batches: grain.MapDataset, workers: int | None, size: int = 0) -> Iterator[Iterator[Any]]:
    """Let `workers` processes (by default one per core) compute the elements, and stop them afterwards.

    With 0 workers, or if starting processes would take longer than computing so few elements, threads of this process
    compute the elements. Raises BadInput if elements of `size` bytes do not fit into shared memory, if its size is
    known.
    """
    leave_import()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if workers is None else workers
    workers = workers if len(batches) > AHEAD * workers else 0
    if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, which are only parsed in absl programs
        flags.FLAGS.mark_as_parsed()
    threads = grain.ReadOptions(num_threads=1 if workers else cores, prefetch_buffer_size=1 if workers else AHEAD)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    if workers:
        check_main_module()
        check_shared_memory(workers, size)
        start_tracker()
    source = [iter(batches.to_iter_dataset(threads).mp_prefetch(options, worker_init_fn=follow_parent))]
    try:
        with one_thread_each():
            yield map(lambda _: jax.tree.map(copy_out, fetched(source[0])), repeat(None))  # a generator keeps arrays
    finally:
        source.pop().close()
        time.sleep(0.1)  # lets a Grain thread release elements that were fetched but not used
        if workers:
            gc.collect()  # frees Grain's semaphores now; Python would warn if its resource tracker freed them later


def check_main_module() -> None:
    """Raise BadInput if worker processes could not import this program, because its code does not come from a file."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    check(file is None or main.__spec__ is not None or Path(file).is_file(),
          f"each worker process imports the program, but {file} is no file; save the program in a file, or use "
          "data.workers 0 (--data.workers 0), which decodes images in threads")


def check_shared_memory(workers: int, size: int, folder: Path = Path("/dev/shm")) -> None:
    """Raise BadInput if the batches that workers prefetch do not fit into shared memory.

    Each worker keeps `AHEAD` batches of `size` bytes ready and computes one more. Another batch is being consumed.
    """
    needed = (workers * (AHEAD + 1) + 1) * size
    free = disk_usage(folder).free if folder.is_dir() else needed
    fewer = int(max(0, free / max(size, 1) - 1) // (AHEAD + 1))
    check(needed <= free, f"{folder}: {free / 2**20:.0f} MB are free, but {workers} worker processes need "
                          f"{needed / 2**20:.0f} MB for their batches; make the folder larger (Docker: --shm-size "
                          f"{-(-needed // 2**30)}g), or use --data.workers {fewer} or a smaller batch")


def fetched(iterator: Iterator[Any]) -> Any:
    """Return the next element. Raises Lost if a worker died, or BadInput if a worker imports an unguarded script."""
    try:
        return next(iterator)
    except RuntimeError as error:
        code = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))  # Grain has no class for it
        if code is None:
            raise
    if int(code[1]) == UNGUARDED:
        raise BadInput(f"{sys.argv[0]}: each worker process imports this script, which would start training again; "
                       "move the script's code below the line: if __name__ == \"__main__\":") from None
    died = f"was killed by {signal.Signals(-int(code[1])).name}" if int(code[1]) < 0 else f"exited with code {code[1]}"
    often = ", probably because memory ran out; use fewer --data.workers" * (int(code[1]) == -signal.SIGKILL)
    raise Lost(f"a worker process {died}{often}. Run the same command to resume from the last checkpoint") from None


def leave_import() -> None:
    """Exit if this worker is importing the user's script; `fetched` reports the reason in the parent process."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # Python's own marker for this state
        os._exit(UNGUARDED)


def start_tracker() -> None:
    """Start Python's resource tracker, which frees the shared memory of killed workers, with its warnings disabled.

    Otherwise, the warnings would appear after our last line. Users can still enable them by a warning option of Python.
    """
    sys.warnoptions.insert(0, "ignore:resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop(0)


def copy_out(leaf: Any) -> Any:
    """Copy an array out of the memory that is shared with the workers, and release that memory.

    Grain would leave the release to a thread, after the array is deleted. If Python is shutting down at that time, the
    thread or the shutdown fails, and the memory stays allocated until the program ends.
    """
    if type(leaf).__name__ != "SharedMemoryArray":  # Grain does not export this class
        return leaf
    copy = np.array(leaf)
    leaf._unlink_on_del = False
    leaf.shm.close()
    leaf.shm.unlink()
    return copy


def follow_parent(worker: int, workers: int) -> None:
    """Ignore signals that a shell or a cluster sends to all processes, and exit when the training process exits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # because there is one worker per core
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def example_at(files: ImageFiles, data: Photographs, seed: int, place: int, random: np.random.Generator) -> HostBatch:
    """Create the example at a position of the stream; `image_at` selects its image."""
    return training_example(files, data, image_at(place, len(files.labels), seed), random)


def training_example(files: ImageFiles, data: Photographs, index: int, random: np.random.Generator) -> HostBatch:
    """Read, crop and mirror one image; if it is unreadable, use the next one instead.

    Raises BadInput if more images in a row are unreadable than `data.broken_images` allows, for example because a drive
    was disconnected.
    """
    first, tries = index, data.broken_images + 2  # the batch's consumer reports the image beyond the limit
    for index in (place % len(files.labels) for place in range(first, first + tries)):
        with suppress(BadInput):
            encoded, name = files.read(index), files.name(index)
            height, width = dimensions(encoded, name)
            box = random_box(height, width, data, random)
            least = np.ceil(min(height, width) * data.size / min(box.height, box.width)) if data.resize == "area" else 0
            image = decode(encoded, name, least=int(least))  # other rules need all pixels
            break
    else:
        raise BadInput(f"{files.name(first)} and the images after it are unreadable, {tries} in a row, but "
                       f"data.broken-images allows {data.broken_images}")
    scale = len(image) / height
    box = box._replace(**{side: value * scale for side, value in box._asdict().items()})
    pixels = cut(image, box, data.size, data.resize)
    if data.flip and random.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    return HostBatch(pixels, files.labels[index], np.array(-1 if index == first else first))


def stack_examples(examples: Sequence[HostBatch]) -> HostBatch:
    """Stack examples into a batch."""
    return HostBatch(*map(np.stack, zip(*examples, strict=True)))
