"""Data: readers for what people have, a catalog of sets that can be had, and preprocessing fitted on training rows."""

from pellucid.data.catalog import Card, card, names
from pellucid.data.dataset import Dataset
from pellucid.data.fetching import fetch
from pellucid.data.loading import load
from pellucid.data.pairs import Pairs, pronunciations
from pellucid.data.preprocessor import Preprocessor
from pellucid.data.series import Series, Windows, time_series, windows
from pellucid.data.storage import data_home
from pellucid.data.text import Vocabulary

__all__ = [
    "Card",
    "Dataset",
    "Pairs",
    "Preprocessor",
    "Series",
    "Vocabulary",
    "Windows",
    "card",
    "data_home",
    "fetch",
    "load",
    "names",
    "pronunciations",
    "time_series",
    "windows",
]
