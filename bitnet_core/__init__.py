"""The engine and the yardstick for BitNet b1.58 models on a CPU.

::

    from bitnet_core import Model, SamplingParams

    with Model.from_file("model.gguf") as model, model.session() as session:
        logits = session.eval([1, 2, 3])
        for token in session.generate([4], SamplingParams(temperature=0, max_tokens=8)):
            print(token)
"""

from bitnet_core._version import __version__
from bitnet_core.batch import Batch, Sequence
from bitnet_core.dtypes import DType, dequantize, nbytes, quantize
from bitnet_core.exceptions import (
    BitNetError,
    ContextOverflowError,
    GGUFError,
    LiveViewsError,
    ModelNotFoundError,
    SessionBusyError,
    ShardedFileError,
    UnsupportedModelError,
)
from bitnet_core.gguf import GGUFReader, TensorInfo
from bitnet_core.model import Model, ModelConfig, Packing
from bitnet_core.sampling import SamplingParams
from bitnet_core.session import Session

__all__ = [
    "Batch",
    "BitNetError",
    "ContextOverflowError",
    "DType",
    "GGUFError",
    "GGUFReader",
    "LiveViewsError",
    "Model",
    "ModelConfig",
    "ModelNotFoundError",
    "Packing",
    "SamplingParams",
    "Sequence",
    "Session",
    "SessionBusyError",
    "ShardedFileError",
    "TensorInfo",
    "UnsupportedModelError",
    "__version__",
    "dequantize",
    "nbytes",
    "quantize",
]
