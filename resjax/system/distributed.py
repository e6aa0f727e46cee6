"""Connects several processes through JAX. They agree on decisions, and only the first process writes files."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resjax.system.errors import BadInput
from resjax.system.last_words import leave_last_words
from resjax.system.progress import Screen

HEARTBEAT_TIMEOUT = 40  # seconds without a heartbeat after which JAX considers a process dead and aborts the others


def join() -> None:
    """Connect the processes started by SLURM, Open MPI, Kubernetes or a TPU pod. Call this before any computation.

    Raises BadInput if no such launcher has started this process, or if the other processes do not answer.
    """
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"--distributed: JAX cannot connect the processes ({error}); start one per host or per GPU with "
                       "srun, mpirun or Kubernetes, or on a TPU pod, or omit the flag") from None
    Screen.silent = not is_first()
    if jax.process_count() > 1:
        own = f"process {jax.process_index()} of {jax.process_count()}"
        leave_last_words(f"resjax: {own}, or a process that it trains with, has died; run the same command to resume "
                         "from the last checkpoint")


def batch_sharding(devices: Sequence[jax.Device]) -> NamedSharding:
    """Return the sharding that splits the first axis of arrays over the devices of all processes."""
    mesh = jax.make_mesh((len(devices),), ("batch",), devices=devices, axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("batch"))


def replicated(sharding: NamedSharding) -> NamedSharding:
    """Replicate arrays on every device of `sharding`."""
    return NamedSharding(sharding.mesh, PartitionSpec())


def is_first() -> bool:
    """Return whether this is the process that writes files and messages."""
    return jax.process_index() == 0


def broadcast_from_first(numbers: np.ndarray | list[int]) -> np.ndarray:
    """Return the value that the first process passes. The other processes pass a value of the same shape."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(numbers)))


def told_by_first(action: Callable[[], object]) -> None:
    """Run a check on the first process only. If it raises BadInput, the error is raised in all processes."""
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
    """Return the largest of the numbers that the processes pass."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if jax.process_count() > 1 else number


def wait_for_all(reason: str) -> None:
    """Wait until every process has reached this call."""
    multihost_utils.sync_global_devices(reason)
