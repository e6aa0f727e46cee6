"""What the vendors publish about the devices that a program can be planned for: one table, with its sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from resjax.system.errors import check

TERA, GIGA = 1e12, 1e9
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Cores:
    """The limits of a GPU that XLA asks for when it lays out kernels (CUDA C++ Programming Guide, "Technical
    Specifications per Compute Capability", and the architecture's white paper).
    """

    capability: tuple[int, int]
    count: int
    """Streaming multiprocessors."""
    float32_units: int
    """Of each multiprocessor."""
    clock: float
    """The highest, in GHz."""
    l2_bytes: int
    shared_bytes: int
    """Shared memory of a multiprocessor; a block gets at most one KiB less."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device: bytes, bytes a second, multiply-adds a second (half of the operations that vendors count)."""

    title: str
    platform: Literal["cuda", "tpu"]
    memory: int
    bandwidth: float
    """Of its memory."""
    peak: Mapping[str, float]
    """Dense multiply-adds a second, by `architecture.precision`."""
    link: float
    """Bytes a second that a device sends to the others of its host (GPU) or slice (TPU)."""
    network: float
    """The same to other hosts: the vendor's own server has so much for each device."""
    launch: float
    """Seconds that a kernel takes at least. Vendors publish none: an assumption, and no GPU has been measured here."""
    source: str
    cores: Cores | None = None
    slices: Mapping[int, str] = field(default_factory=dict)
    """The topologies of a TPU, by the number of chips."""


def _dense(float32: float, tensorfloat32: float, bfloat16: float) -> dict[str, float]:
    """Give the multiply-adds a second of precisions, from tera-operations a second."""
    peaks = {"float32": float32, "tensorfloat32": tensorfloat32, "bfloat16": bfloat16}
    return {precision: peak * TERA / 2 for precision, peak in peaks.items()}


def _tpu(bfloat16: float) -> dict[str, float]:
    """Give a TPU's: its units multiply bfloat16 only, and XLA composes float32 of six such products, or of three."""
    return _dense(bfloat16 / 6, bfloat16 / 3, bfloat16)


GPU_LAUNCH = 2e-6
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
HOPPER = Cores(capability=(9, 0), count=132, float32_units=128, clock=1.98, l2_bytes=50 * 2**20,
               shared_bytes=228 * 2**10)

DEVICES: dict[str, Device] = {
    "h100": Device(
        title="NVIDIA H100 SXM, 80 GB", platform="cuda", memory=80 * GIB, bandwidth=3.35 * TERA,
        peak=_dense(67, 494.7, 989.4), link=450 * GIGA, network=50 * GIGA, launch=GPU_LAUNCH, cores=HOPPER,
        source="NVIDIA H100 datasheet (its figures with sparsity halved); network: DGX H100, 400 Gb/s for each GPU"),
    "h200": Device(
        title="NVIDIA H200 SXM, 141 GB", platform="cuda", memory=int(141 * GIGA), bandwidth=4.8 * TERA,
        peak=_dense(67, 494.7, 989.4), link=450 * GIGA, network=50 * GIGA, launch=GPU_LAUNCH, cores=HOPPER,
        source="NVIDIA H200 datasheet (its figures with sparsity halved); network: DGX H200, 400 Gb/s for each GPU"),
    "a100": Device(
        title="NVIDIA A100 SXM, 80 GB", platform="cuda", memory=80 * GIB, bandwidth=2.039 * TERA,
        peak=_dense(19.5, 156, 312), link=300 * GIGA, network=25 * GIGA, launch=GPU_LAUNCH,
        cores=Cores(capability=(8, 0), count=108, float32_units=64, clock=1.41, l2_bytes=40 * 2**20,
                    shared_bytes=164 * 2**10),
        source="NVIDIA A100 datasheet; network: DGX A100, 200 Gb/s for each GPU"),
    "b200": Device(
        title="NVIDIA B200 (HGX), 180 GB", platform="cuda", memory=int(180 * GIGA), bandwidth=7.7 * TERA,
        peak=_dense(75, 1100, 2250), link=900 * GIGA, network=50 * GIGA, launch=GPU_LAUNCH,
        cores=Cores(capability=(10, 0), count=148, float32_units=128, clock=1.965, l2_bytes=126 * 2**20,
                    shared_bytes=228 * 2**10),
        source="NVIDIA HGX B200 datasheet (figures with sparsity halved); network: DGX B200, 400 Gb/s for each GPU"),
    "v5e": Device(
        title="TPU v5e", platform="tpu", memory=16 * GIB, bandwidth=819 * GIGA, peak=_tpu(197), link=200 * GIGA,
        network=200 * GIGA, launch=0.0, slices=FLAT, source="docs.cloud.google.com/tpu/docs/v5e"),
    "v5p": Device(
        title="TPU v5p", platform="tpu", memory=95 * GIB, bandwidth=2_765 * GIGA, peak=_tpu(459), link=600 * GIGA,
        network=600 * GIGA, launch=0.0, slices=CUBES, source="docs.cloud.google.com/tpu/docs/v5p"),
    "v6e": Device(
        title="TPU v6e", platform="tpu", memory=32 * GIB, bandwidth=1_638 * GIGA, peak=_tpu(918), link=400 * GIGA,
        network=400 * GIGA, launch=0.0, slices=FLAT, source="docs.cloud.google.com/tpu/docs/v6e"),
}


def find_device(name: str) -> Device:
    """Return a device of the table. Raises BadInput that lists them."""
    check(name in DEVICES, f"on is {name!r}; it is one of {', '.join(DEVICES)}")
    return DEVICES[name]


def target_config(device: Device) -> str:
    """Describe a GPU as XLA reads it: its `GpuTargetConfigProto`, in Protocol Buffers' text format."""
    cores = device.cores
    assert cores is not None
    major, minor = cores.capability
    accelerated = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
          shared_memory_per_block: {48 * 2**10} shared_memory_per_core: {cores.shared_bytes}
          shared_memory_per_block_optin: {cores.shared_bytes - 2**10}
          core_count: {cores.count} fpus_per_core: {cores.float32_units} clock_rate_ghz: {cores.clock}
          block_dim_limit_x: {2**31 - 1} block_dim_limit_y: 65535 block_dim_limit_z: 65535
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          memory_bandwidth: {device.bandwidth:.0f} device_memory_size: {device.memory} l2_cache_size: {cores.l2_bytes}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          cuda_compute_capability {{ major: {major} minor: {minor} {accelerated} }}
          runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" driver_version: "12.8.0"
          dnn_version: "9.10.0"
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        device_description_str: "{device.title}"
        """
