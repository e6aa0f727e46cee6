"""A table of the devices that plans support, with the vendors' published figures and their sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from resjax.system.errors import check

TERA, GIGA, GIB, MIB, KIB = 1e12, 1e9, 2**30, 2**20, 2**10


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device, with bytes, bytes per second, and multiply-adds per second (half of the operations that vendors
    state).
    """

    title: str
    platform: Literal["cuda", "tpu"]
    memory: int
    bandwidth: float
    """The memory bandwidth, in bytes per second."""
    peak: Mapping[str, float]
    """Dense multiply-adds per second, by `architecture.precision`."""
    link: float
    """Bytes per second that a device sends to the others of its host (GPU) or slice (TPU)."""
    network: float
    """Bytes per second to other hosts, per device, in the vendor's own server."""
    launch: float
    """The assumed minimum seconds of a kernel. Vendors publish no value, and no GPU was measured."""
    source: str
    limits: str = ""
    """The limits of a GPU that XLA needs for kernel layouts, in the format of its `GpuDeviceInfoProto`."""
    slices: Mapping[int, str] = field(default_factory=dict)
    """The topologies of a TPU, by number of chips."""


def peaks(float32: float, tensorfloat32: float, bfloat16: float) -> dict[str, float]:
    """Convert tera-operations per second to multiply-adds per second, by precision."""
    return {"float32": float32 * TERA / 2, "tensorfloat32": tensorfloat32 * TERA / 2, "bfloat16": bfloat16 * TERA / 2}


def tpu(name: str, memory: int, bandwidth: float, bfloat16: float, link: float, slices: Mapping[int, str]) -> Device:
    """Describe a TPU, whose units multiply bfloat16. XLA composes a float32 product of six such products."""
    return Device(title=f"TPU {name}", platform="tpu", memory=memory, bandwidth=bandwidth, link=link, network=link,
                  peak=peaks(bfloat16 / 6, bfloat16 / 3, bfloat16), launch=0.0, slices=slices,
                  source=f"docs.cloud.google.com/tpu/docs/{name}")


def gpu_limits(capability: int, multiprocessors: int, float32_units: int, clock: float, l2_bytes: int,
               shared_bytes: int) -> str:
    """Describe a GPU's cores for XLA.

    `float32_units` and `shared_bytes` are per multiprocessor, and `clock` is the maximum in GHz. Sources: CUDA C++
    Programming Guide, "Technical Specifications per Compute Capability", and the architecture's white paper.
    """
    accelerated = "feature_extension: ACCELERATED_FEATURES" if capability >= 9 else ""
    return f"""
        threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
        shared_memory_per_block: {48 * KIB} shared_memory_per_core: {shared_bytes}
        shared_memory_per_block_optin: {shared_bytes - KIB} l2_cache_size: {l2_bytes}
        core_count: {multiprocessors} fpus_per_core: {float32_units} clock_rate_ghz: {clock}
        block_dim_limit_x: {2**31 - 1} block_dim_limit_y: 65535 block_dim_limit_z: 65535
        thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
        registers_per_core_limit: 65536 registers_per_block_limit: 65536
        cuda_compute_capability {{ major: {capability} minor: 0 {accelerated} }}"""


FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
AMPERE = gpu_limits(8, 108, 64, 1.41, 40 * MIB, 164 * KIB)
HOPPER = gpu_limits(9, 132, 128, 1.98, 50 * MIB, 228 * KIB)
BLACKWELL = gpu_limits(10, 148, 128, 1.965, 126 * MIB, 228 * KIB)

NVIDIA = partial(Device, platform="cuda", launch=2e-6)

DEVICES: dict[str, Device] = {
    "h100": NVIDIA(
        title="NVIDIA H100 SXM, 80 GB", memory=80 * GIB, bandwidth=3.35 * TERA, peak=peaks(67, 494.7, 989.4),
        link=450 * GIGA, network=50 * GIGA, limits=HOPPER,
        source="NVIDIA H100 datasheet (its figures with sparsity halved); network: DGX H100, 400 Gb/s per GPU"),
    "h200": NVIDIA(
        title="NVIDIA H200 SXM, 141 GB", memory=141 * 10**9, bandwidth=4.8 * TERA, peak=peaks(67, 494.7, 989.4),
        link=450 * GIGA, network=50 * GIGA, limits=HOPPER,
        source="NVIDIA H200 datasheet (its figures with sparsity halved); network: DGX H200, 400 Gb/s per GPU"),
    "a100": NVIDIA(
        title="NVIDIA A100 SXM, 80 GB", memory=80 * GIB, bandwidth=2.039 * TERA, peak=peaks(19.5, 156, 312),
        link=300 * GIGA, network=25 * GIGA, limits=AMPERE,
        source="NVIDIA A100 datasheet; network: DGX A100, 200 Gb/s per GPU"),
    "b200": NVIDIA(
        title="NVIDIA B200 (HGX), 180 GB", memory=180 * 10**9, bandwidth=7.7 * TERA, peak=peaks(75, 1100, 2250),
        link=900 * GIGA, network=50 * GIGA, limits=BLACKWELL,
        source="NVIDIA HGX B200 datasheet (figures with sparsity halved); network: DGX B200, 400 Gb/s per GPU"),
    "v5e": tpu("v5e", 16 * GIB, 819 * GIGA, 197, 200 * GIGA, FLAT),
    "v5p": tpu("v5p", 95 * GIB, 2_765 * GIGA, 459, 600 * GIGA, CUBES),
    "v6e": tpu("v6e", 32 * GIB, 1_638 * GIGA, 918, 400 * GIGA, FLAT)}


@dataclass(frozen=True)
class Machine:
    """Devices of one kind that share each batch, their number, and the number of hosts."""

    device: Device
    count: int = 1
    hosts: int = 1


def find_device(name: str) -> Device:
    """Return a device from the table. Raises BadInput, listing all devices, if there is none."""
    check(name in DEVICES, f"on is {name!r}; it must be one of {', '.join(DEVICES)}")
    return DEVICES[name]


def target_config(device: Device) -> str:
    """Describe a GPU for XLA by a `GpuTargetConfigProto`, in Protocol Buffers' text format."""
    return f"""
        gpu_device_info {{ {device.limits} memory_bandwidth: {device.bandwidth:.0f} device_memory_size: {device.memory}
          runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" driver_version: "12.8.0"
          dnn_version: "9.10.0" }}
        device_description_str: "{device.title}" platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}"""
