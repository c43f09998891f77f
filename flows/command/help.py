"""The help of the command: commands and options in groups, each with whole sentences, and examples that can be pasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

GROUPS: dict[str, tuple[str, ...]] = {
    "Run": ("reproduce", "sweep"),
    "Look": ("status", "ui", "report", "settings", "explain", "traces", "export"),
    "Your own networks and traces": ("convert", "export-nir", "analyse", "compare", "register"),
    "Set up and tidy up": ("doctor", "data", "deploy", "reconcile", "gc", "verify", "adopt", "resend"),
}
"""The commands as the help lists them; any other stands under "Further"."""
EXAMPLES: dict[str, tuple[str, ...]] = {
    "dynconf": ("dynconf reproduce", "dynconf status", "dynconf ui"),
    "reproduce": (
        "dynconf reproduce",
        "dynconf reproduce --setting cifar10-resnet18-qcfs --set time_steps=16",
        "dynconf reproduce --profile quick --seeds 0,1,2 --workers 2",
        "dynconf reproduce --setting cifar10-resnet18-qcfs --dataset digits.npz",
    ),
    "sweep": (
        "dynconf sweep --setting cifar10-vgg16-qffs --grid time_steps=4,8,16",
        "dynconf sweep --setting cifar10-resnet18-qcfs --study alpha=1..50 --trials 10",
    ),
    "status": ("dynconf status", "dynconf status --home /shared/home --json"),
    "ui": ("dynconf ui", "dynconf ui --port 5001"),
    "report": ("dynconf report .dynconf/results/latest",),
    "settings": ("dynconf settings", "dynconf settings --json"),
    "explain": ("dynconf explain cifar10-resnet18-qcfs", "dynconf explain cifar10-resnet18-qcfs --set time_steps=16"),
    "traces": ("dynconf traces cifar10-vgg16-qffs --split test --out test.npz",),
    "export": ("dynconf export --out results/my-run",),
    "convert": (
        "dynconf convert --architecture resnet20 --checkpoint resnet20.pt --out SNN.pt --traces traces",
        "dynconf convert --network mynet:make --checkpoint net.pt --dataset digits.npz --out SNN.pt --traces traces",
    ),
    "export-nir": ("dynconf export-nir SNN.pt SNN.nir", "dynconf export-nir SNN.pt SNN.nir --units physical --json"),
    "analyse": (
        "dynconf analyse calibration.npz --test test.npz",
        "dynconf analyse calibration.npz --test test.npz --epsilon 0.005 --delta 0.05",
    ),
    "compare": ("dynconf compare calibration.npz --test test.npz",),
    "register": ("dynconf register latest --alias champion",),
    "doctor": ("dynconf doctor", "dynconf doctor --json"),
    "fetch": ("dynconf data fetch cifar10",),
    "deploy": ("PREFECT_API_URL=http://127.0.0.1:4200/api dynconf deploy --pool gpus",),
    "reconcile": ("dynconf reconcile --dry-run", "dynconf reconcile --gone node17"),
    "gc": ("dynconf gc", "dynconf gc --delete --keep-days 30"),
    "verify": ("dynconf verify",),
    "adopt": ("dynconf adopt cifar10-resnet18-qcfs --stage train",),
    "resend": ("dynconf resend",),
}
"""Examples by command."""


class Group(TyperGroup):
    """Commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See ``click``; the groups in their order, in each the commands in theirs."""
        found: dict[str, Any] = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        there = [name for name, command in found.items() if command is not None and not command.hidden]
        grouped = [name for names in GROUPS.values() for name in names]
        if not set(there) & set(grouped):
            super().format_commands(ctx, formatter)
            return
        further = tuple(name for name in there if name not in grouped)
        widest = max(map(len, there))
        for title, names in (*GROUPS.items(), ("Further", further)):
            rows = [(name, found[name]) for name in names if name in there]
            texts = [
                (name.ljust(widest), command.get_short_help_str(formatter.width - widest - 6))
                for name, command in rows
                if command
            ]
            if texts:
                with formatter.section(title):
                    formatter.write_dl(texts)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """See ``click``; the examples."""
        _write_examples(str(self.name if self.name in EXAMPLES else "dynconf" if ctx.parent is None else ""), formatter)


class Command(TyperCommand):
    """Options in groups (``rich_help_panel`` of each), and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See ``click``; arguments first, then options without a group, then the groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            panel = getattr(parameter, "rich_help_panel", None)
            title = "Arguments" if parameter.param_type_name == "argument" else panel or "Options"
            groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """See ``click``; the examples."""
        _write_examples(str(self.name), formatter)


def _write_examples(name: str, formatter: Any) -> None:
    examples: Sequence[str] = EXAMPLES.get(name, ())
    if examples:
        with formatter.section("Examples" if len(examples) > 1 else "Example"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
