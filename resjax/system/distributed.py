"""Many processes as one: joined by JAX, of one mind in what is decided, and only the first of them writes files."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resjax.system.errors import BadInput
from resjax.system.last_words import leave_last_words
from resjax.system.progress import Screen

HEARTBEAT_TIMEOUT = 40  # seconds after which JAX takes a silent process for dead and aborts the others


def join() -> None:
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started; call it before anything computes.

    Raises BadInput where there is no such launcher, or the others do not answer.
    """
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"--distributed: JAX cannot join processes here ({error}); start one per host (or per GPU) with "
                       "srun, mpirun, Kubernetes or on a TPU pod, or leave the flag out") from None
    Screen.silent = not is_first()
    if jax.process_count() > 1:
        own = f"process {jax.process_index()} of {jax.process_count()}"
        leave_last_words(f"resjax: {own}, or one that it trains with, has died; the same command resumes from what is "
                         "saved")


def batch_sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    """Split the first axis of arrays over the devices of all processes."""
    mesh = jax.make_mesh((len(devices),), ("batch",), devices=devices, axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("batch"))


def replicated(sharding: NamedSharding) -> NamedSharding:
    """Put arrays whole onto every device over which `sharding` splits them."""
    return NamedSharding(sharding.mesh, PartitionSpec())


def is_first() -> bool:
    """Say whether this process is the one that writes and tells."""
    return jax.process_index() == 0


def broadcast_from_first(numbers: np.ndarray | list[int]) -> np.ndarray:
    """Return what the first process passes in; the others pass in the same shape."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(numbers)))


def told_by_first(action: Callable[[], object]) -> None:
    """Let the first process do what may be refused. Raises its BadInput in all processes."""
    message = b""
    if is_first():
        try:
            action()
        except BadInput as error:
            message = str(error).encode()
    if jax.process_count() > 1:
        (length,) = broadcast_from_first([len(message)])
        message = bytes(broadcast_from_first(np.frombuffer(message or bytes(length), np.uint8))) if length else b""
    if message:
        raise BadInput(message.decode())


def largest(number: int) -> int:
    """Return the largest number that any process passes in."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if jax.process_count() > 1 else number


def wait_for_all(reason: str) -> None:
    """Return once every process has come here."""
    multihost_utils.sync_global_devices(reason)
