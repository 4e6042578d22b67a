"""Layers: one family per file, forward and backward side by side."""

from pellucid.layers.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    HardSigmoid,
    Identity,
    LeakyReLU,
    Maxout,
    PReLU,
    ReLU,
    ScaledTanh,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    activations,
)
from pellucid.layers.attention import AdditiveAttention, Attention
from pellucid.layers.base import PREDICT, Input, Layer, Mode, Node, layers
from pellucid.layers.conv import Conv1D, Conv2D, ConvTranspose2D
from pellucid.layers.dense import Dense
from pellucid.layers.dropout import Dropout
from pellucid.layers.embedding import Embedding
from pellucid.layers.merge import Add, Concat, Multiply
from pellucid.layers.norm import BatchNorm, LayerNorm, LocalResponseNorm
from pellucid.layers.pool import (
    AveragePool1D,
    AveragePool2D,
    GlobalAveragePool,
    GlobalMaxPool,
    LpPool2D,
    MaxPool1D,
    MaxPool2D,
    StochasticPool2D,
    Subsample2D,
)
from pellucid.layers.rbf import RBF
from pellucid.layers.recompute import Recompute
from pellucid.layers.recurrent import GRU, LSTM, Bidirectional, SimpleRNN
from pellucid.layers.rescale import Rescale
from pellucid.layers.shape import Flatten, Reshape, Split
from pellucid.layers.shortcut import Shortcut2D
from pellucid.layers.spatial import Crop2D, Upsample2D, ZeroPad2D
from pellucid.layers.steps import MeanOverTime, Repeat, TimeDistributed

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "PREDICT",
    "RBF",
    "SELU",
    "Activation",
    "Add",
    "AdditiveAttention",
    "Attention",
    "AveragePool1D",
    "AveragePool2D",
    "BatchNorm",
    "Bidirectional",
    "Concat",
    "Conv1D",
    "Conv2D",
    "ConvTranspose2D",
    "Crop2D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "Identity",
    "Input",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LocalResponseNorm",
    "LpPool2D",
    "MaxPool1D",
    "MaxPool2D",
    "Maxout",
    "MeanOverTime",
    "Mode",
    "Multiply",
    "Node",
    "PReLU",
    "ReLU",
    "Recompute",
    "Repeat",
    "Rescale",
    "Reshape",
    "ScaledTanh",
    "Shortcut2D",
    "SiLU",
    "Sigmoid",
    "SimpleRNN",
    "Softmax",
    "Softplus",
    "Split",
    "StochasticPool2D",
    "Subsample2D",
    "Tanh",
    "TimeDistributed",
    "Upsample2D",
    "ZeroPad2D",
    "activations",
    "layers",
]
