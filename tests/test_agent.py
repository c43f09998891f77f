"""The agent at run time gives the same bits, hence the same exits, as the rule on traces, in any batch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from measures_from_outside import ShareOfVotes

from dynconf_core.confidence import elementary
from dynconf_core.confidence.additive import Additive
from dynconf_core.confidence.elementary import exponential, logarithm
from dynconf_core.confidence.forecast import Forecast
from dynconf_core.confidence.learned import TERMS, Learned
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import AgentState, ExitAgent
from dynconf_core.exit.readout import Readout
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

SMOOTHINGS = [Smoothing("sum", 3.7), Smoothing("mean", 0.3), Smoothing("power", 2.1, 0.45)]
LEARNED = Learned(
    Additive(
        -0.7,
        {name: 0.1 * (index + 1) - 0.3 for index, name in enumerate(TERMS)},
        {name: (0.1 * index, 0.3 * index + 0.1) for index, name in enumerate(TERMS)},
        {name: (0.2, -0.1 * index) for index, name in enumerate(TERMS)},
    ),
    Forecast((1, 2, 5), (1.3, 1.1, 0.9), (0.0, 0.4, 0.7)),
    1.3,
)
RULES = [
    *(Rule(measure, smoothing, 0.0) for measure in ("max_softmax", "entropy", "gap") for smoothing in SMOOTHINGS),
    Rule("patience", SMOOTHINGS[0], 0.0),
    Rule(LEARNED, SMOOTHINGS[0], 0.0),
    Rule(ShareOfVotes(0.25), SMOOTHINGS[1], 0.0),
]
DECODING = Rule(LEARNED, PLAIN, 0.0, Readout([1.5, 0.7, 1.1], [2.0, 0.0, -0.5], [[0.1 * label for label in range(10)]] * 3))
named = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.measure.name}-{rule.smoothing.form}")


def traces_of(kind: str, samples: int = 37, time_steps: int = 9, classes: int = 5) -> Traces:
    """Random logits and difficult kinds of logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(samples, time_steps, classes))
    logits[:, 0] -= 0.3
    made = {
        "float64": logits,
        "float32": (3 * logits).astype(np.float32),
        "float16": (8 * logits).astype(np.float16),
        "ties": rng.integers(-1, 2, size=logits.shape).astype(np.float32),
        "constant": np.full(logits.shape, 0.1, np.float32),
        "zero": np.zeros(logits.shape, np.float32),
        "huge": (1e30 * logits).astype(np.float32),
        "largest": 1e99 * np.sign(logits),
        "tiny": 1e-300 * logits,
        "saturated": 500 * logits,
    }[kind]
    return Traces(made, rng.integers(0, classes, samples))


KINDS = ["float64", "float32", "float16", "ties", "constant", "zero", "huge", "largest", "tiny", "saturated"]


def tensors(state: AgentState) -> tuple[torch.Tensor, ...]:
    return (state.accumulated, state.step, *state.memory, *state.decoding)


def stepped(agent: ExitAgent, traces: Traces) -> tuple[np.ndarray, np.ndarray]:
    """Scores and predictions (N, T) of the agent, all samples in one batch."""
    state = agent.initial(traces.samples, traces.classes)
    scores, predictions = [], []
    for step in range(traces.time_steps):
        prediction, score, exits, state = agent(torch.from_numpy(traces.logits[:, step]), state)
        assert torch.equal(exits, score > agent.rule.threshold)
        scores.append(score.numpy())
        predictions.append(prediction.numpy())
    return np.stack(scores, 1), np.stack(predictions, 1)


@named
@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_equals_the_traces_to_the_bit(rule: Rule, kind: str) -> None:
    traces = traces_of(kind)
    scores, predictions = stepped(ExitAgent(rule), traces)
    assert scores.dtype == np.float64 and not np.isnan(scores).any()
    np.testing.assert_array_equal(scores, rule.scores(traces))
    np.testing.assert_array_equal(predictions, traces.predictions())


@pytest.mark.parametrize("classes", [2, 3, 8, 17, 1000])
@named
def test_any_number_of_classes(rule: Rule, classes: int) -> None:
    rng = np.random.default_rng(classes)
    traces = Traces(rng.normal(size=(5, 6, classes)).astype(np.float32), np.zeros(5, int))
    np.testing.assert_array_equal(stepped(ExitAgent(rule), traces)[0], rule.scores(traces))


def exits_in_a_stream(agent: ExitAgent, traces: Traces, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Exit steps (N,) of a batch that is constantly compacted, refilled and shuffled, with samples at different steps."""
    waiting = list(rng.permutation(traces.samples))
    inside = np.empty(0, int)
    state = agent.initial(0, traces.classes)
    left = np.zeros(traces.samples, int)
    while waiting or inside.size:
        joining = [waiting.pop() for _ in range(min(len(waiting), int(rng.integers(0, slots - len(inside) + 1))))]
        inside = np.concatenate((inside, np.array(joining, int)))
        fresh = agent.initial(len(joining), traces.classes)
        # Rows of any kind, then the fresh samples in the last of them.
        rows = torch.cat([torch.arange(len(state.step)), torch.zeros(len(joining), dtype=torch.int64)])
        last = torch.arange(len(state.step), len(rows))
        state = fresh if not len(state.step) else state.take(rows).put(last, fresh)
        order = rng.permutation(len(inside))
        inside, state = inside[order], state.take(torch.from_numpy(order))
        logits = torch.from_numpy(traces.logits[inside, state.step.numpy()])
        _, _, exits, state = agent(logits, state)
        gone = exits | (state.step == traces.time_steps)
        left[inside[gone.numpy()]] = state.step[gone].numpy()
        inside, state = inside[~gone.numpy()], state.take(~gone)
    return left


@named
@pytest.mark.parametrize("kind", ["float32", "float16", "ties", "saturated"])
def test_exit_steps_of_any_batch_composition(rule: Rule, kind: str) -> None:
    traces = traces_of(kind)
    scores = np.unique(rule.scores(traces)[:, :-1])
    # Thresholds that are scores: where one bit more or less would move an exit.
    for threshold in (*scores[:: max(1, len(scores) // 3)], scores[-1], -np.inf, np.inf):
        exact = Rule(rule.measure, rule.smoothing, float(threshold))
        rng = np.random.default_rng(1)
        np.testing.assert_array_equal(exits_in_a_stream(ExitAgent(exact), traces, 7, rng), exact.exit_steps(traces))


@named
def test_layout_and_batch_size_change_no_bit(rule: Rule) -> None:
    agent = ExitAgent(rule)
    logits = torch.from_numpy(traces_of("float32", samples=101, classes=10).logits)
    together = agent(logits[:, 1], agent(logits[:, 0], agent.initial(101, 10))[3])[1]
    for first, last in ((0, 1), (3, 4), (5, 12), (0, 64), (36, 101)):
        part = logits[first:last]
        state = agent(part[:, 0], agent.initial(last - first, 10))[3]
        turned = state._replace(accumulated=state.accumulated.t().contiguous().t())
        assert torch.equal(agent(part[:, 1].t().contiguous().t(), turned)[1], together[first:last])


@pytest.mark.parametrize("function", [exponential, logarithm])
def test_few_numbers_and_many_give_the_same_bits(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """numpy computes the few numbers of an agent's step, torch the many of whole traces."""
    numbers = torch.randn(3 * elementary.FEW, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 300
    edges = torch.tensor([0.0, -0.0, -708, -708.0001, 709, 710, 1e300, -1e300, -np.inf, 0.5, 1, 2**0.5], dtype=torch.float64)
    x = torch.cat([numbers, edges])
    x = x.abs().clamp(min=2.3e-308, max=1e308) if function is logarithm else x
    many, few = function(x), torch.cat([function(part) for part in x.split(100)])
    assert len(x) > elementary.FEW and torch.equal(many.view(torch.int64), few.view(torch.int64))


@pytest.mark.parametrize("rule", [RULES[2], RULES[3], *RULES[-3:], DECODING], ids=lambda rule: rule.measure.name)
def test_export_saves_loads_and_gives_the_same_bits(rule: Rule) -> None:
    agent = ExitAgent(rule)
    samples = torch.export.Dim("samples")
    state = agent.initial(4, 10)
    rows = {0: samples}
    shapes = (rows, AgentState(rows, rows, *(tuple(rows for _ in part) for part in (state.memory, state.decoding))))  # type: ignore[arg-type]
    program = torch.export.export(agent, (torch.zeros(4, 10), state), dynamic_shapes=shapes)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    exported = torch.export.load(stream).module()
    for batch in (1, 2, 33):
        logits = torch.randn(6, batch, 10, generator=torch.Generator().manual_seed(batch))
        here = there = agent.initial(batch, 10)
        for step in range(6):
            *ours, here = agent(logits[step], here)
            *theirs, there = exported(logits[step], there)
            assert all(
                torch.equal(one, other) for one, other in zip((*ours, *tensors(here)), (*theirs, *tensors(there)), strict=True)
            )


def test_the_state_has_the_batch_first_and_is_not_changed() -> None:
    for rule in RULES:
        agent = ExitAgent(rule)
        state = agent.initial(3, 4)
        before = [tensor.clone() for tensor in tensors(state)]
        _, _, _, after = agent(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), state)
        assert all(torch.equal(one, other) for one, other in zip(before, tensors(state), strict=True))
        for one, other in zip(tensors(state), tensors(after), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype) and len(one) == 3
        assert after.step.tolist() == [1, 1, 1]


def test_by_hand() -> None:
    agent = ExitAgent(Rule("gap", Smoothing("sum", 2), 1.0))
    state = agent.initial(2, 3)
    prediction, score, exits, state = agent(torch.tensor([[2.0, 0, 1], [0, 3, 3]]), state)
    assert (prediction.tolist(), score.tolist(), exits.tolist()) == ([0, 1], [0.5, 0.0], [False, False])
    prediction, score, exits, state = agent(torch.tensor([[1.0, 0, 0], [0, 0, 4]], dtype=torch.float16), state)
    assert (prediction.tolist(), score.tolist(), exits.tolist()) == ([0, 2], [1.0, 2.0], [False, True])
    assert state.accumulated.tolist() == [[3, 0, 1], [0, 3, 7]] and state.memory == () and state.step.tolist() == [2, 2]


def test_what_patience_remembers_by_hand() -> None:
    agent = ExitAgent(Rule("patience", Smoothing("sum", 1), 1.0))
    state = agent.initial(2, 2)
    assert [tensor.tolist() for tensor in state.memory] == [[-1, -1], [0, 0]]
    for logits, stood in (([[1.0, 0], [0, 1]], [1, 1]), ([[1.0, 0], [3, 0]], [2, 1]), ([[1.0, 0], [1, 0]], [3, 2])):
        _, score, exits, state = agent(torch.tensor(logits), state)
        assert score.tolist() == stood == state.memory[1].tolist() and exits.tolist() == [number > 1 for number in stood]


def test_rows_are_taken_and_replaced() -> None:
    agent = ExitAgent(RULES[-2])
    state = agent(torch.arange(8.0).reshape(4, 2), agent.initial(4, 2))[3]
    kept = state.take(torch.tensor([True, False, False, True]))
    assert all(torch.equal(one, other[[0, 3]]) for one, other in zip(tensors(kept), tensors(state), strict=True))
    replaced = state.put(torch.tensor([2]), agent.initial(1, 2))
    assert replaced.step.tolist() == [1, 1, 0, 1] and state.step.tolist() == [1, 1, 1, 1]
    assert replaced.accumulated.tolist() == [[0, 1], [2, 3], [0, 0], [6, 7]] and not replaced.memory[0][2].any()


def test_logits_of_another_shape_are_named() -> None:
    agent = ExitAgent(RULES[0])
    for shape in ((3, 4, 5), (5, 3), (3, 6), (1, 5)):
        with pytest.raises(InputError, match="shape"):
            agent(torch.zeros(shape), agent.initial(3, 5))


@named
def test_no_graph_grows_from_step_to_step(rule: Rule) -> None:
    agent = ExitAgent(rule)
    state = agent.initial(3, 5)
    for _ in range(2):
        prediction, score, exits, state = agent(torch.ones(3, 5, requires_grad=True), state)
        assert not any(tensor.requires_grad for tensor in (prediction, score, exits, *tensors(state)))


def test_half_precision_does_not_affect_the_threshold() -> None:
    agent = ExitAgent(Rule("max_softmax", Smoothing("sum", 0.1 + 0.2), 0.1))
    whole = torch.nn.Sequential(torch.nn.Linear(3, 3), agent).half()
    assert whole[1].rule.threshold == 0.1 and not list(agent.parameters()) and not list(agent.buffers())


@named
def test_from_a_file_and_from_its_content(rule: Rule, tmp_path: Path) -> None:
    file = rule.save(tmp_path / "rule.json", {"calibrated": {"samples": 3}})
    own = ShareOfVotes if "source" in rule.to_json() else None
    assert ExitAgent.from_json(file, own).rule == rule == ExitAgent.from_json(str(file), own).rule
    entry = json.loads(file.read_text())
    assert ExitAgent.from_json(entry, own).rule == rule and entry["schema"] == 2
    with pytest.raises(InputError, match="nowhere"):
        ExitAgent.from_json(tmp_path / "nowhere.json")


def test_logits_that_are_no_tensor_are_refused() -> None:
    agent = ExitAgent(Rule("gap", Smoothing("sum", 1.0), 1.0))
    with pytest.raises(InputError, match=r"an ndarray \(1, 4\); give a tensor"):
        agent(np.zeros((1, 4)), agent.initial(1, 4))
