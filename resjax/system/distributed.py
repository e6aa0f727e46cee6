"""Many processes as one: joined by JAX, of one mind in what is decided, and only the first of them writes files."""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resjax.system import peers
from resjax.system.errors import BadInput
from resjax.system.progress import Screen


def join() -> None:
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started; call it before anything computes.

    Raises BadInput where there is no such launcher, or the others do not answer.
    """
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=int(peers.SILENCE))
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"--distributed: JAX cannot join processes here ({error}); start one per host (or per GPU) with "
                       "srun, mpirun, Kubernetes or on a TPU pod, or leave the flag out") from None
    Screen.silent = not is_first()
    if jax.process_count() > 1:
        watch_each_other()


def watch_each_other() -> None:
    """Let every process end where another dies: the first listens to all, and all to the first."""
    from jax._src.distributed import global_state  # the public API does not say where the first process is

    key, count = os.urandom(peers.KEY), jax.process_count()
    port, gather = peers.listen(key, count) if is_first() else (0, None)
    port, *numbers = broadcast_from_first([port, *key]).tolist()
    host = (global_state.coordinator_address or "").rpartition(":")[0]
    peers.watch(gather or (lambda: peers.come(host, port, bytes(numbers), jax.process_index())), count)


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
