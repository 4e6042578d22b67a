"""``pellucid zoo``: the networks that have a name."""

from __future__ import annotations

import argparse

from pellucid.cli.common import Answer, common_flags, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``zoo`` takes."""
    verbs = parser.add_subparsers(metavar="list", required=True, parser_class=type(parser))
    verb = verbs.add_parser("list", help="every network", description="Every network that `--net` knows by name.")
    common_flags(verb)
    verb.set_defaults(run=_list, parser=verb)


def _list(args: argparse.Namespace) -> Answer:
    from pellucid import zoo

    entries = zoo.entries().values()
    text = table([[each.name, each.title, each.source] for each in entries], ["net", "", "source"], left=3)
    return Answer({"nets": [each.document() for each in entries]}, text + "\n\n`pellucid show NET` shows one")
