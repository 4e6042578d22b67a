"""pellucid: deep learning you can see through.

Every layer is an explicit forward block that returns its activation and a cache, and an explicit backward block that
reads the cache and returns the gradients, in the notation of the course: A, Z, W, b, dA, dW, examples in columns.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "pellucid.layers": (
        "Activation Add AdditiveAttention Attention AveragePool1D AveragePool2D BatchNorm Bidirectional Concat Conv1D "
        "Conv2D ConvTranspose2D Crop2D Dense Dropout ELU Embedding Flatten GELU GRU GlobalAveragePool GlobalMaxPool "
        "HardSigmoid Identity Input LSTM Layer LayerNorm LeakyReLU LocalResponseNorm LpPool2D MaxPool1D MaxPool2D "
        "Maxout MeanOverTime Multiply PReLU RBF ReLU Recompute Repeat Rescale Reshape SELU ScaledTanh Shortcut2D SiLU "
        "Sigmoid SimpleRNN Softmax Softplus Split StochasticPool2D Subsample2D Tanh TimeDistributed Upsample2D "
        "ZeroPad2D"
    ),
    "pellucid.network": "Graph Sequential from_config load",
    "pellucid.losses": (
        "AbsoluteError BinaryCrossEntropy CodeDistance CrossEntropy Hinge Huber MaximumAPosteriori MeanSquaredError "
        "SigmoidCrossEntropy SoftmaxCrossEntropy SquaredError"
    ),
    "pellucid.optimizers": "AdaGrad Adadelta Adam AdamW GradientDescent Lion Momentum Nesterov RMSprop",
    "pellucid.schedules": "Constant Cosine Exponential OneCycle Piecewise ReduceOnPlateau Step WarmUp",
    "pellucid.regularizers": "L1 L2 Elastic MaxNorm",
    "pellucid.sequences": "Sequences",
    "pellucid.training.callbacks": "Callback EarlyStopping WeightAveraging",
    "pellucid.training.augment": (
        "ColorJitter Cutout ElasticDistortion HorizontalFlip Mixup PCAJitter RandomCrop Rotate Scale Shift"
    ),
    "pellucid.engines.jax.machines": "distribute",
    "pellucid.engines.mesh": "Mesh",
    "pellucid.history": "History",
    "pellucid.tasks.text": "generate",
    "pellucid.inspect.trace": "trace",
    "pellucid.inspect.exchanges": "exchanged",
    "pellucid.inspect.gradcheck": "check_gradients",
    "pellucid.inspect.features": "exciting_patches feature_maps filters maximising_input saliency",
    "pellucid.inspect.sheet": "features_sheet",
    "pellucid.inspect.sounds": "exciting_sounds frequency_response sounds_sheet",
    "pellucid.inspect.receptive_field": "receptive_field",
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names.split()}
_MODULES = (
    *("data", "engines", "errors", "estimators", "initializers", "inspect", "layers", "losses", "metrics", "network"),
    *("optimizers", "regularizers", "runs", "schedules", "signal", "sound", "tasks", "training", "tune"),
)

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"pellucid.{name}")
    else:
        from pellucid.errors import unknown

        raise AttributeError(str(unknown("name in pellucid", name, __all__)))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
