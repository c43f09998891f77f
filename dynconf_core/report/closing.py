"""What stands at the end of every report: a glossary, the environment and the command to do it again."""

from __future__ import annotations

from collections.abc import Sequence

from dynconf_core.report.content import Section, Table, Text
from dynconf_core.results.environment import Environment

GLOSSARY = {
    "time step, T": "An SNN runs for T time steps; its answer after t of them is read from the sum of the logits so far.",
    "exit": "The step at which an image is answered: the first at which its confidence is above the threshold, else T.",
    "mean steps": "The mean of the exit steps over the test images: the latency with early exit.",
    "points lost": "Accuracy at T minus accuracy at the exit, in percentage points, on the same images; negative: gained.",
    "saved": "1 minus mean steps / t: against T, or against a fixed number of steps t.",
    "calibration images": "Held out of the training images; they choose rule, smoothing and threshold. Test images judge.",
    "iso-accuracy": "The first fixed step that is as accurate on the calibration images as T: a fairer baseline than T.",
    "oracle": "An exit that knows the labels and stops each image at its first correct step, at T if it is never right: out of "
    "reach, but a bound.",
    "oracle, any budget": "For every mean number of steps, the highest accuracy that an exit which knows the labels reaches. "
    "It stops images that are never right at step 1, so it takes fewer steps than the other oracle at the same accuracy.",
    "max_softmax": "Confidence is the largest softmax probability of the smoothed logits: the paper's rule.",
    "entropy, gap, patience, learned": "Other measures: entropy of the softmax; distance of the two largest logits; steps "
    "without a change of the answer; a regression on features of the logits.",
    "smoothing, alpha": "The summed logits divided by a temperature before the softmax.",
    "may lose": "The accuracy that a rule may lose in expectation on unseen images, when it is chosen.",
    "95 % interval": "Accuracy: exact (Clopper and Pearson). Steps: bootstrap. Loss: paired (Tango).",
    "expected calibration error": "Mean distance of confidence and accuracy over 15 bins of confidence.",
    "synaptic operations": "Accumulations that spikes cause: each spike times the number of weights that it meets.",
    "QCFS, QFFS": "The paper's two conversion schemes: a clipped activation with L levels and integrate-and-fire neurons; a "
    "few bits and signed neurons, which may take a spike back.",
}


def closing(environment: Environment | None, command: str, again: str) -> list[Section]:
    """Glossary, environment and commands.

    Args:
        environment: of the results; None if it is not known.
        command: what computed them; "" if that is not known.
        again: the command that writes the report anew.
    """
    commands = [line for line in (command, again) if line]
    found = [Section("Glossary", [Table(("", ""), [list(row) for row in GLOSSARY.items()], numbers=False)])]
    if not commands and environment is None:
        return found
    environs: list[Table | Text] = [Text(commands, code=True)] if commands else []
    if environment is not None:
        environs.append(facts(_environment(environment)))
    return [*found, Section("Do it again", environs, "The command, from the folder in which it ran, and its environment.")]


def facts(found: Sequence[tuple[str, str]], wide: bool = False) -> Table:
    """Names and what they are."""
    return Table(("", ""), [list(row) for row in found], numbers=False, wide=wide)


def _environment(found: Environment) -> list[tuple[str, str]]:
    return [
        ("commit", found.commit or "not known"),
        ("machine", f"{found.cpu}, {found.cores} cores" + (f", {found.gpu}" if found.gpu else "")),
        ("platform", found.platform),
        ("Python", found.python),
        *found.versions.items(),
    ]
