"""``bitnet quantize`` and ``bitnet dequantize``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitnet_core.cli_arguments import Isa, Threads, axes, refuse_existing, whole_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Each command imports what it needs when it runs, so that none waits for the modules of another.
# ruff: noqa: PLC0415
# Typer reads the annotations of a command, so what they name is imported when the module is.
# ruff: noqa: TC003

__all__ = ["dequantize", "quantize"]


class _Layout(str, Enum):
    GROUPS_OF_128 = "128"
    GROUPS_OF_64 = "64"
    ROW4 = "row4"


_LayoutOption = Annotated[_Layout, typer.Option(help="Order of the codes of i2_s.")]


def quantize(
    array: Annotated[Path, typer.Argument(help="A .npy file of numbers; its last axis is a row.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="NAME.gguf: a file with one tensor. Other names: bare bytes.", show_default=False)
    ],
    *,
    dtype: Annotated[str, typer.Option(help="f32, f16, bf16, i2_s, qk256, bitnet32, q8_0 or q6_k.")] = "i2_s",
    scale: Annotated[str, typer.Option(help="For i2_s: absmean, absmax, or a number.")] = "absmean",
    layout: _LayoutOption = _Layout.GROUPS_OF_128,
    name: Annotated[str, typer.Option(help="Name of the tensor in NAME.gguf.")] = "weight",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    threads: Threads = None,
    isa: Isa = None,
) -> None:
    """Pack an array of floats into a tensor format.

    Example: bitnet quantize weights.npy weights.gguf --dtype i2_s --scale absmax
    """
    import numpy as np

    from bitnet_core.dtypes import dequantize as unpack
    from bitnet_core.dtypes import quantize as pack

    refuse_existing(out, force=force)
    x = _load_npy(array)
    options: dict[str, Any] = {"layout": layout.value, "isa": isa, "n_threads": threads}
    packed = pack(x, dtype, scale=_scale(scale), **options)
    if out.suffix == ".gguf":
        if layout is not _Layout.GROUPS_OF_128:
            raise ValueError(f"a GGUF file cannot say that its layout is {layout.value}; write bare bytes instead")
        _write_one_tensor(out, name, dtype, x.shape, packed)
    else:
        _write_bytes(out, packed)
    error = np.abs(unpack(packed, dtype, x.shape, **options) - x)
    typer.echo(
        f"{out}: {dtype} {axes(x.shape)}, {packed.nbytes:,} bytes, {8 * packed.nbytes / x.size:.3f} bits an element; "
        f"error at most {error.max():.3g}, on average {error.mean():.3g}"
    )


def dequantize(
    packed: Annotated[Path, typer.Argument(help="A GGUF file, or the bare bytes of a tensor.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The .npy file to write, float32.", show_default=False)],
    *,
    tensor: Annotated[str | None, typer.Option(help="Which tensor of the GGUF file; default: the only one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Format of bare bytes, or of type id 36 in a GGUF file.")] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of bare bytes, for example 2560,6912.")] = None,
    layout: _LayoutOption = _Layout.GROUPS_OF_128,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    threads: Threads = None,
    isa: Isa = None,
) -> None:
    """Unpack a tensor into a .npy file of float32.

    Example: bitnet dequantize model.gguf q.npy --tensor blk.0.attn_q.weight
    """
    from bitnet_core.dtypes import dequantize as unpack
    from bitnet_core.files import AtomicFile

    refuse_existing(out, force=force)
    data, dtype, dims = _packed_tensor(packed, tensor, dtype, shape)
    x = unpack(data, dtype, dims, layout=layout.value, isa=isa, n_threads=threads)
    with AtomicFile(out) as file:
        import numpy as np

        np.save(file, x)
    typer.echo(f"{out}: float32 {axes(x.shape)}, from {dtype}")


# ---- reading and writing ----


def _load_npy(path: Path) -> NDArray[Any]:
    import numpy as np

    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path} is not a .npy file")
        file.seek(0)
        x = np.load(file, allow_pickle=False)
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise ValueError(f"{path} must hold numbers, at least one; it holds {x.dtype} of shape {x.shape}")
    return np.atleast_1d(x)


def _scale(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # a rule by name; quantize() knows which there are


def _write_bytes(path: Path, data: NDArray[np.uint8]) -> None:
    from bitnet_core.files import AtomicFile

    with AtomicFile(path) as file:
        file.write(data.data)


def _write_one_tensor(path: Path, name: str, dtype: str, shape: tuple[int, ...], packed: NDArray[np.uint8]) -> None:
    from bitnet_core.dtypes import DType
    from bitnet_core.gguf_writer import GGUFWriter

    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "tensor", "string")
        if dtype == "qk256":
            writer.add("bitnet_core.qk256", True, "bool")
        writer.add_tensor(name, shape, gguf_type=DType(dtype).gguf_type, nbytes=packed.nbytes)
        writer.write_tensor(name, packed)
        found = _dtype_that_is_read(writer.flush(), name)
        if found != dtype:  # several formats share a type id; nothing in the file tells them apart but the size
            raise ValueError(
                f"a GGUF file cannot say that this tensor is {dtype}: it would be read as {found or 'nothing known'}; "
                f"write bare bytes instead, to a name that does not end in .gguf"
            )


def _dtype_that_is_read(path: Path, name: str) -> str | None:
    from bitnet_core.exceptions import GGUFError
    from bitnet_core.gguf import GGUFReader

    try:
        with GGUFReader(path) as reader:
            return reader.info(name).dtype
    except GGUFError:
        return None


def _packed_tensor(
    path: Path, name: str | None, dtype: str | None, shape: str | None
) -> tuple[NDArray[np.uint8], str, tuple[int, ...]]:
    """Return bytes, format and shape of a tensor in a GGUF file, or of a file of bare bytes."""
    import numpy as np

    from bitnet_core.gguf import GGUFReader

    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if not is_gguf:
        if dtype is None or shape is None:
            raise ValueError(f"{path} is not a GGUF file; bare bytes need --dtype and --shape")
        return np.fromfile(path, np.uint8), dtype, tuple(whole_numbers("--shape", shape))
    if shape is not None:
        raise ValueError(f"{path} is a GGUF file, which says the shape of each tensor itself; leave out --shape")
    with GGUFReader(path, dtype=dtype) as reader:
        if name is None:
            if len(reader.infos) != 1:
                raise ValueError(f"{path} has {len(reader.infos)} tensors; choose one with --tensor")
            name = reader.infos[0].name
        if name not in reader.tensors:
            raise ValueError(f"{path} has no tensor {name!r}; `bitnet info --tensors` lists them")
        found = reader.info(name)
        if found.dtype is None:
            raise ValueError(f"{path}: tensor {name!r} has type id {found.gguf_type}, which this library does not know")
        return np.array(reader.tensors[name]).reshape(-1).view(np.uint8), found.dtype, found.shape
