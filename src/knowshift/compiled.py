"""What every compiled loop shares: how it is compiled, and floats seen as their bits."""

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


@overload
def jit(function: F) -> F: ...
@overload
def jit(**options: Any) -> Callable[[F], F]: ...
def jit(function: F | None = None, **options: Any) -> Any:
    """Compile on first use and keep the result beside the code or in the user's cache, where possible.

    The cache notices changes of a compiled function's own file only. Compiled loops release the interpreter lock, so
    they run side by side in plain threads.
    """
    if function is None:
        return lambda given: jit(given, **options)
    chosen: dict[str, Any] = {"nogil": True, "error_model": "numpy", **options}
    try:
        return cast(F, numba.njit(cache=True, **chosen)(function))
    except RuntimeError:  # neither place can be written to
        return cast(F, numba.njit(**chosen)(function))


@intrinsic  # type: ignore[untyped-decorator]
def bits_of(typing: Any, value: Any) -> Any:
    """The bits of a float32 as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def float_of(typing: Any, value: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate
