"""``pellucid data``: the data sets that are known, their cards, and fetching them."""

from __future__ import annotations

import argparse
from typing import Any

from pellucid.cli.common import Answer, common_flags, note, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``data`` takes."""
    verbs = parser.add_subparsers(metavar="list|card|fetch", required=True, parser_class=type(parser))
    for name, line, do in (
        ("list", "every data set, and whether it is on this machine", _list),
        ("card", "what is in a data set, whose it is, and how it is had", _card),
        ("fetch", "fetch a data set and check it", _fetch),
    ):
        verb = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name != "list":
            verb.add_argument("name", metavar="NAME", help="of `pellucid data list`")
        common_flags(verb)
        verb.set_defaults(run=do, parser=verb)


def _list(args: argparse.Namespace) -> Answer:
    from pellucid import data

    cards = [data.card(name) for name in data.names()]
    here = [_is_here(card) for card in cards]
    keys = ("name", "title", "task", "examples")
    documents = [{key: getattr(card, key) for key in keys} | {"here": h} for card, h in zip(cards, here, strict=True)]
    rows = [
        [card.name, card.title, card.task, f"{card.examples:,}", "yes" if h else f"pellucid data fetch {card.name}"]
        for card, h in zip(cards, here, strict=True)
    ]
    return Answer({"data": documents}, table(rows, ["name", "", "task", "examples", "here"], left=5))


def _is_here(card: Any) -> bool:
    from pellucid.data import catalog
    from pellucid.errors import PellucidError

    try:
        catalog.locate(card)
    except PellucidError:
        return False
    return True


def _card(args: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from pellucid import data

    card = data.card(args.name)
    return Answer({**asdict(card), "here": _is_here(card)}, str(card))


def _fetch(args: argparse.Namespace) -> Answer:
    from pellucid import data

    path = data.fetch(args.name, progress=note)
    follows = data.card(args.name).reader or f"pellucid train {args.name}"
    return Answer({"name": args.name, "path": str(path)}, f"{path}\nnext: {follows}")
