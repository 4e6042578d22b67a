"""``pellucid show``: what a run or a network is made of; the engines."""

from __future__ import annotations

import argparse
from typing import Any

from pellucid.cli.common import Answer, UsageError, common_flags, heading, indented, integer, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``show`` takes."""
    parser.add_argument(
        "name", nargs="?", metavar="RUN|NET", help="a run, a saved network, a network of the zoo, a file"
    )
    parser.add_argument("--engines", action="store_true", help="the engines, and why one cannot run here")
    add = parser.add_argument_group("what several devices would exchange").add_argument
    add("--mesh", metavar="M", help="the devices, simulated: data=4, model=2, data=2,model=2 or data=4,sharded")
    add("--batch-size", type=integer, metavar="N", help="examples per update (default: 128)")
    add = parser.add_argument_group("what its units respond to").add_argument
    add("--features", action="store_true", help="draw filters, feature maps, exciting patches and preferred inputs")
    add("--data", metavar="DATA", help="the images to draw them with (default: the run's own validation images)")
    add("--out", metavar="FILE", help=".html or .png (default: features.html and features.png beside the model)")
    common_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Show."""
    if bool(args.name) == args.engines:
        raise UsageError("give a RUN or a NET, or --engines", args.parser)
    if (args.data or args.out) and not args.features:
        raise UsageError("--data and --out go with --features", args.parser)
    if args.batch_size and args.mesh is None:
        raise UsageError("--batch-size goes with --mesh", args.parser)
    asked = [f"--{name}" for name in ("engines", "mesh", "features") if getattr(args, name) not in (None, False)]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} do not go together", args.parser)
    if args.engines:
        return _engines()
    from pellucid.experiment import is_run

    if args.mesh is not None:
        return _exchanged(args)
    if args.features:
        return _features(args)
    return _run(args.name) if is_run(args.name) else _net(args.name)


def _engines() -> Answer:
    from pellucid import engines

    reasons = engines.known()
    preferred = engines.available()[0]
    said = {name: engines.about(name) for name in engines.available()}
    rows = [
        [name, reason or "; ".join(filter(None, ("runs here", "what auto takes" * (name == preferred), said[name])))]
        for name, reason in reasons.items()
    ]
    document = {
        name: {"available": reason is None, "reason": reason, "about": said.get(name, "")}
        for name, reason in reasons.items()
    }
    return Answer({"engines": document, "auto": preferred}, table(rows, ["engine", ""], left=2))


def _exchanged(args: argparse.Namespace) -> Answer:
    import os

    from pellucid import zoo
    from pellucid.engines.mesh import Mesh
    from pellucid.experiment import is_run, opened
    from pellucid.network.saving import from_config
    from pellucid.tasks.building import complete_file, is_file

    mesh = Mesh.of(args.mesh)
    assert mesh is not None
    # Nothing is run, so a CPU can stand for any number of devices; JAX reads this when it is imported.
    simulated = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(mesh.size)}
    before = {name: os.environ.get(name) for name in simulated}
    os.environ |= simulated
    try:
        from pellucid.inspect.exchanges import exchanged

        if is_run(args.name):
            net = opened(args.name)[0]
        else:
            net = complete_file(args.name) if is_file(args.name) else zoo.find(args.name).example()
        found = exchanged(from_config(net.config(), engine="jax"), mesh=mesh, batch_size=args.batch_size or 128)
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}
    document = {
        "name": args.name,
        "mesh": str(mesh),
        "batch_size": found.batch_size,
        "exchanged": [row._asdict() for row in found.rows],
        "parameter_bytes": found.parameter_bytes,
        "step_bytes": found.step_bytes,
    }
    return Answer(document, f"{heading(args.name)}\n{found}")


def _net(name: str) -> Answer:
    from pellucid import zoo
    from pellucid.tasks.building import complete_file, complete_network, is_file

    if is_file(name):
        net, about, document = complete_file(name), [heading(name)], {"file": name}
    else:
        entry = zoo.find(name)
        net = entry.example()
        recipe = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in vars(entry.recipe).items())
        about = [heading(f"{entry.name}: {entry.title}"), f"  source       {entry.source}"]
        about += [f"  differs by   {each}" for each in entry.deviations]
        about += [f"  recipe       {recipe}", "", f"for inputs {entry.input_shape} and {entry.outputs} classes:"]
        document = entry.document()
    summary = net.summary()
    return Answer(
        document | {"network": complete_network(net)} | _totals(summary), "\n".join([*about, "", str(summary)])
    )


def _run(name: str) -> Answer:
    import numpy as np
    import tomli_w

    from pellucid.experiment import opened
    from pellucid.inspect.curves import terminal
    from pellucid.trees import leaves

    net, run = opened(name)
    parameters: list[list[Any]] = []
    for path, leaf in leaves(net.parameters):
        W = net.ops.to_numpy(leaf).astype(np.float64)
        parameters.append([path, list(W.shape), W.size, float(W.mean()), float(W.std()), float(np.abs(W).max())])
    summary = net.summary()
    rows = [[path, str(tuple(shape)), *numbers] for path, shape, *numbers in parameters]
    shown = table(rows, ["parameter", "shape", "numbers", "mean", "deviation", "largest |.|"], left=2)
    parts = [heading("Layers"), str(summary), "", heading("Parameters"), shown, ""]
    document: dict[str, Any] = {
        "parameters_by_name": {each[0]: dict(zip(_STATISTICS, each[1:], strict=True)) for each in parameters}
    }
    document |= _totals(summary)
    if run is None:
        return Answer({"model": name, "network": net.config()} | document, "\n".join([heading(name), "", *parts]))
    history, openings = run.history(), run.openings
    files = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())
    measured = next((each["metrics"] for each in reversed(openings) if each["metrics"]), None)
    config = run.config
    network = config.get("network", {})
    text = tomli_w.dumps(config | {"network": {name: said for name, said in network.items() if name != "layers"}})
    lines = [text.rstrip(), "", "[network.layers]", *map(_one_line, network.get("layers", ()))]
    head = [heading(f"{run.name}  ({run.status})"), ""]
    parts = [
        *head,
        *parts,
        heading("Hyperparameters"),
        indented("\n".join(lines)),
        "",
        heading("Learning"),
        terminal(history),
        "",
    ]
    if measured:
        parts += [heading("Test set"), indented(_measures(measured, openings)), ""]
    parts += [heading("Files"), f"  {run.path}", indented(indented("\n".join(files)))]
    document |= {
        "run": str(run.path),
        "status": run.status,
        "config": config,
        "environment": run.environment,
        "epochs": len(history),
        "history": history.records,
        "test": measured,
        "test_openings": len(openings),
        "files": files,
    }
    return Answer(document, "\n".join(parts))


def _features(args: argparse.Namespace) -> Answer:
    from pathlib import Path

    import numpy as np

    from pellucid import data, tasks
    from pellucid.data.prepared import Prepared
    from pellucid.experiment import opened, trained
    from pellucid.inspect.sheet import features_sheet

    heard, run = opened(args.name)
    if tasks.of(heard).kind == "sound":
        return _sounds(args, heard, run)
    net, preprocessor, run = trained(args.name)
    if args.data:
        rows = Prepared(data.load(args.data, like=preprocessor), preprocessor)
    elif run is not None:
        task = tasks.made(run.config)
        rows = task.rows("validation" if task.sizes["validation"] else "train")
    else:
        raise UsageError("a saved network has no images: give --data", args.parser)
    x, y = rows.take(np.linspace(0, len(rows) - 1, min(len(rows), _IMAGES)).astype(int))
    classes = preprocessor.classes if preprocessor.task == "classification" else None
    beside = run.path if run else Path(args.name).parent
    paths = [Path(args.out)] if args.out else [beside / "features.html", beside / "features.png"]
    title = f"{run.name if run else Path(args.name).name}: what its units respond to"
    options: dict[str, Any] = {"y": y if classes else None, "classes": classes, "title": title}
    files = [str(features_sheet(net, x, path, **options)) for path in paths]
    text = "\n".join([heading(title), *(f"  {each}" for each in files)])
    return Answer({"run": str(run.path) if run else args.name, "images": len(x), "files": files}, text)


def _sounds(args: argparse.Namespace, net: Any, run: Any) -> Answer:
    from pathlib import Path

    from pellucid import tasks
    from pellucid.inspect.sounds import sounds_sheet
    from pellucid.tasks.sound import heard_like

    if args.data:
        rows, classes = heard_like(net, args.data)
    elif run is not None:
        task: Any = tasks.made(run.config)
        rows, classes = task.rows("validation" if task.sizes["validation"] else "train"), task.classes
    else:
        raise UsageError("a saved network has no sounds: give --data", args.parser)
    x, y = rows.take(slice(None))
    path = Path(args.out or (run.path if run else Path(args.name).parent) / "features.png")
    title = f"{run.name if run else Path(args.name).name}: the sounds that its units respond to"
    sounds_sheet(net, x, path, rate=rows.hearing.rate, y=y, classes=classes, title=title)
    document = {"run": str(run.path) if run else args.name, "sounds": len(y), "files": [str(path)]}
    return Answer(document, f"{heading(title)}\n  {path}")


_IMAGES = 1000  # looked through for the patches that excite a unit most
_STATISTICS = ("shape", "numbers", "mean", "deviation", "largest")


def _one_line(layer: dict[str, Any]) -> str:
    """A layer's hyperparameters, those at their default too: ``Dense: units 16, activation relu, …``."""

    def said(value: Any) -> str:
        if not isinstance(value, dict) or "type" not in value:
            return str(value)
        arguments = [f"{name}={said(each)}" for name, each in value.items() if name != "type"]
        return f"{value['type']}({', '.join(arguments)})" if arguments else value["type"]

    own = ", ".join(f"{name} {said(value)}" for name, value in layer.items() if name != "type")
    kind = layer.get("type", "shared")
    return f"{kind}: {own}" if own else kind


def _measures(measured: dict[str, float], openings: list[dict[str, Any]]) -> str:
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measured.items())
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    return f"{values}   (looked at {times}, last on {openings[-1]['when']})"


def _totals(summary: Any) -> dict[str, Any]:
    names = ("parameters", "multiply_adds", "cache_bytes_per_example")
    return {name: getattr(summary, name) for name in names}
