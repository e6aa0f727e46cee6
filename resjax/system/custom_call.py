"""Handles XLA custom calls in Python, through ctypes, without a compiler or an extension module.

XLA passes the handler a call frame, which contains the attributes, the arrays' addresses, and XLA's thread pool. The
structures are declared as in xla/ffi/api/c_api.h (openxla/xla), interface 0.3.
"""

import atexit
import ctypes
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p, sizeof
from itertools import count
from typing import Any

import jax

from resjax.system.terminal import tell


def c_struct(name: str, **fields: Any) -> Any:
    """Declare a C structure."""
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


def extensible(name: str, **fields: Any) -> Any:
    """Declare a C structure that begins with its size and its extensions, as most of XLA's do."""
    return c_struct(name, struct_size=c_size_t, extension_start=c_void_p, **fields)


Buffer = extensible("XLA_FFI_Buffer", dtype=c_int, data=c_void_p, rank=c_int64, dims=c_void_p)
Args = extensible("XLA_FFI_Args", size=c_int64, types=c_void_p, args=POINTER(POINTER(Buffer)))  # also XLA_FFI_Rets
Array = c_struct("XLA_FFI_Array", dtype=c_int, size=c_size_t, data=c_void_p)
Attrs = extensible("XLA_FFI_Attrs", size=c_int64, types=c_void_p, names=c_void_p, attrs=POINTER(POINTER(Array)))
Version = extensible("XLA_FFI_Api_Version", major_version=c_int, minor_version=c_int)
Metadata = c_struct("XLA_FFI_Metadata", struct_size=c_size_t, api_version=Version, traits=c_uint32)
MetadataExtension = c_struct("XLA_FFI_Metadata_Extension", struct_size=c_size_t, type=c_int, next=c_void_p,
                             metadata=POINTER(Metadata))
Api = extensible("XLA_FFI_Api", api_version=Version, internal_api=c_void_p, **dict.fromkeys((
    "Error_Create", "Error_GetMessage", "Error_Destroy", "Handler_Register", "Stream_Get", "Type_Register",
    "ExecutionContext_Get", "State_Set", "State_Get", "DeviceMemory_Allocate", "DeviceMemory_Free",
    "ThreadPool_Schedule", "ThreadPool_NumThreads"), CFUNCTYPE(c_void_p, c_void_p)))
CallFrame = extensible("XLA_FFI_CallFrame", api=POINTER(Api), ctx=c_void_p, stage=c_int, args=Args, rets=Args,
                       attrs=Attrs)
ErrorCreate = extensible("XLA_FFI_Error_Create_Args", message=c_char_p, errc=c_int)
Schedule = extensible("XLA_FFI_ThreadPool_Schedule_Args", ctx=c_void_p, task=c_void_p, data=c_void_p)
NumThreads = extensible("XLA_FFI_ThreadPool_NumThreads_Args", ctx=c_void_p, num_threads=POINTER(c_int64))
EXTENSION_METADATA, STAGE_EXECUTE, ERROR_INTERNAL = 1, 3, 13


class Call:
    """One call, with its attribute, the addresses of its arguments and of its result, and XLA's thread pool."""

    def __init__(self, frame: Any) -> None:
        attribute, self.frame = frame.attrs.attrs[0].contents, frame
        self.attribute = ctypes.string_at(attribute.data, 8 * attribute.size)  # the attribute holds 64-bit integers
        self.arguments = [frame.args.args[number].contents.data for number in range(frame.args.size)]
        self.result = frame.rets.args[0].contents.data

    def share(self, work: Callable[[Iterator[int]], None], pieces: int) -> None:
        """Run `work` on this thread and on available threads of XLA's pool, each taking pieces until none is left."""
        free, finished, done, failures = iter(range(pieces)), count(1), threading.Lock(), list[BaseException]()
        done.acquire()

        def finish() -> None:
            if next(finished) == pieces:
                done.release()

        def turns() -> Iterator[int]:
            for piece in free:
                yield piece
                finish()

        def take_part() -> None:
            try:
                work(turns())
            except BaseException as error:
                failures.append(error)
                finish()
                for _ in turns():
                    pass

        frame, threads = self.frame, c_int64(1)
        asked = NumThreads(sizeof(NumThreads), None, frame.ctx, ctypes.pointer(threads))
        frame.api.contents.ThreadPool_NumThreads(ctypes.addressof(asked))
        for _ in range(min(threads.value, pieces) - 1):
            scheduled[number := next(numbers)] = take_part
            wish = Schedule(sizeof(Schedule), None, frame.ctx, ctypes.cast(task, c_void_p), number)
            frame.api.contents.ThreadPool_Schedule(ctypes.addressof(wish))
        take_part()
        done.acquire()  # a thread that starts later finds no piece left
        if failures:
            raise failures[0]


scheduled: dict[int, Callable[[], None]] = {}
numbers = count(1)


def take_scheduled_part(number: int) -> None:
    """Take part in a shared call on a thread of XLA's pool."""
    try:
        scheduled[number]()
    finally:
        del scheduled[number]


task = CFUNCTYPE(None, c_void_p)(take_scheduled_part)  # XLA_FFI_Task


@atexit.register  # called before JAX's own function, which was registered earlier, when JAX was imported
def finish_scheduled() -> None:
    """Wait until no thread of XLA's pool needs Python any more.

    Otherwise, a thread that starts late would wait forever for Python's lock, which XLA's client holds while it waits
    for the thread to end.
    """
    while scheduled:
        time.sleep(0.001)


def register(name: str, answer: Callable[[Call], None]) -> None:
    """Register `answer` as XLA's handler of a custom call on CPU. If it raises, the calling program fails."""

    def handle(address: int) -> int | None:
        frame = CallFrame.from_address(address)
        try:
            if frame.extension_start:
                extension = MetadataExtension.from_address(frame.extension_start)
                if extension.type == EXTENSION_METADATA:
                    version = extension.metadata.contents.api_version
                    version.major_version, version.minor_version = 0, 1
            elif frame.stage == STAGE_EXECUTE:
                answer(Call(frame))
        except BaseException as raised:
            # format_exc raises SystemError (from ast) in Python 3.11 if several threads call it at once
            places = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(raised.__traceback__)]
            message = f"{type(raised).__name__}: {raised} ({', '.join(places)})"
            if jax.local_device_count("cpu") > 1:
                tell(f"{name}: {message}; the process ends because its other devices wait for this one")
            error = ErrorCreate(sizeof(ErrorCreate), None, message.encode(), ERROR_INTERNAL)
            created: int = frame.api.contents.Error_Create(ctypes.addressof(error))
            return created
        return None

    handlers.append(handler := CFUNCTYPE(c_void_p, c_void_p)(handle))  # XLA_FFI_Handler
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")


handlers: list[Any] = []  # XLA can call them until the process ends
