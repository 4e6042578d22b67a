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
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    activations,
)
from pellucid.layers.base import PREDICT, Input, Layer, Mode, Node, layers
from pellucid.layers.dense import Dense
from pellucid.layers.dropout import Dropout
from pellucid.layers.embedding import Embedding
from pellucid.layers.merge import Add, Concat, Multiply
from pellucid.layers.norm import BatchNorm, LayerNorm
from pellucid.layers.shape import Flatten, Reshape, Split

__all__ = [
    "ELU",
    "GELU",
    "PREDICT",
    "SELU",
    "Activation",
    "Add",
    "BatchNorm",
    "Concat",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "HardSigmoid",
    "Identity",
    "Input",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Maxout",
    "Mode",
    "Multiply",
    "Node",
    "PReLU",
    "ReLU",
    "Reshape",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Split",
    "Tanh",
    "activations",
    "layers",
]
