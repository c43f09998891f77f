"""The command: what cannot work ends with exit code 2 and a sentence that names it and the remedy; nothing is started."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Answer, Command, command
from homes import chain

from dynconf_core.data.cifar10 import BINARY_SHA1, FOLDER, PER_BATCH, RECORD
from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.request import Request, size_in_bytes
from dynconf_core.experiment.settings import FURTHER, SETTINGS
from dynconf_core.experiment.stages import STAGES
from dynconf_flows.command import main as cli
from dynconf_flows.command import session
from dynconf_flows.command.ui import server_command

VGG, RESNET = "cifar10-vgg16-qffs", "cifar10-resnet18-qcfs"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def dynconf(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process; no server may be started."""

    def started(home: Path) -> None:
        pytest.fail("a Prefect server was started")

    monkeypatch.setattr(session, "TemporaryServer", started)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("DYNCONF_HOME", str(home))
    for name in ("DYNCONF_DATA", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    return command(monkeypatch, capsys)


def refused(answer: Answer, home: Path, *names: str) -> None:
    """Exit code 2, a message with these words in it, no traceback, and nothing in the home."""
    assert answer.code == 2, answer
    assert answer.out == ""
    for name in names:
        assert name in answer.error
    assert "Traceback" not in answer.error
    assert not home.is_dir() or not list(home.iterdir())


BAD = {
    "setting": (["--setting", "cifar10-vgg16-qfss"], ["'cifar10-vgg16-qfss' is unknown", f"did you mean '{VGG}'", RESNET]),
    "profile": (["--profile", "nope"], ["'nope' is unknown", "smoke, quick, paper"]),
    "field": (["--set", "epocs=1"], ["'epocs' is unknown", "epochs", "max_drop"]),
    "the symbol of a field": (["--set", "T=16"], ["'T'", "time_steps=16"]),
    "another symbol": (["--set", "l=8"], ["'l'", "levels=8"]),
    "setting of a module that is not there": (["--setting", "mine:SETTING"], ["mine:SETTING", "no module mine"]),
    "type": (["--set", "epochs=many"], ["epochs=many", "whole number"]),
    "fraction for a whole number": (["--set", "time_steps=1.5"], ["time_steps=1.5", "whole number"]),
    "no time steps": (["--set", "time_steps=0"], ["time_steps=0", "from 1"]),
    "not a number": (["--set", "alpha=nan"], ["alpha=nan", "from 0.001"]),
    "unknown smoothing": (["--set", "smoothing=median"], ["smoothing=median", "sum or mean"]),
    "field of the other method": (["--setting", VGG, "--set", "levels=4"], ["'levels'", VGG]),
    "batch larger than the data": (["--set", "batch_size=1001"], ["batch_size=1001", "1000 training images"]),
    "no value": (["--set", "epochs"], ["--set epochs", "--set time_steps=16"]),
    "twice": (["--set", "epochs=1", "--set", "epochs=2"], ["epochs is given twice"]),
    "seed and seeds": (["--seed", "1", "--seeds", "0,1"], ["--seed 1", "--seeds 0,1", "one of them"]),
    "seeds": (["--seeds", "0,x"], ["--seeds 0,x", "0,1,2"]),
    "seed below zero": (["--seed", "-1"], ["seed=-1", "from 0"]),
    "seed no number": (["--seed", "x"], ["--seed"]),
    "device": (["--device", "cuda:7"], ["cuda:7", "--device cpu"]),
    "unknown device": (["--device", "tpu"], ["'tpu'", "cpu, cuda"]),
    "checkpoint without a setting": (["--checkpoint", "a.pt"], ["--checkpoint a.pt", "SETTING=PATH"]),
    "checkpoint twice": (["--checkpoint", f"{VGG}=a", "--checkpoint", f"{VGG}=b"], [f"--checkpoint {VGG}", "twice"]),
    "checkpoint of another setting": (["--setting", VGG, "--checkpoint", f"{RESNET}=a.pt"], [RESNET, VGG]),
    "one checkpoint for several seeds": (
        ["--seeds", "0,1", "--checkpoint", f"{VGG}=a.pt"],
        [f"--checkpoint {VGG}=a.pt", "several seeds", "{seed}"],
    ),
    "missing checkpoint of a seed": (
        ["--seeds", "3,4", "--checkpoint", f"{VGG}=gone-{{seed}}.pt"],
        ["gone-3.pt", "does not exist"],
    ),
    "missing checkpoint": (["--checkpoint", f"{VGG}=gone.pt"], ["gone.pt", "does not exist"]),
    "missing CIFAR-10": (
        ["--profile", "quick", "--setting", RESNET, "--data", "nowhere"],
        [f"nowhere/{FOLDER} is missing", "dynconf data fetch cifar10"],
    ),
    "missing Imagenette": (
        ["--profile", "quick", "--setting", "imagenet-vgg16-qcfs", "--data", "nowhere"],
        ["nowhere", "dynconf data fetch imagenette"],
    ),
    "missing ImageNet": (
        ["--profile", "paper", "--setting", "imagenet-vgg16-qcfs", "--data", "nowhere"],
        ["nowhere/imagenet/train", "--data"],
    ),
    "memory without a unit": (["--memory", "8"], ["--memory 8", "GiB", "8GiB"]),
    "memory in words": (["--memory", "lots"], ["--memory lots", "8GiB"]),
    "no memory": (["--memory", "0GiB"], ["--memory 0GiB", "above 0"]),
    "a time limit in words": (["--stage-timeout", "2 hours"], ["--stage-timeout 2 hours", "90s, 30m or 2h"]),
    "no time": (["--stage-timeout", "0m"], ["--stage-timeout 0m", "above 0"]),
    "too little memory": (["--memory", "1100MiB"], ["--memory 1100MiB", "more than 1200 MiB", "2 simulations"]),
    "too little memory for one": (
        ["--profile", "quick", "--setting", RESNET, "--memory", "0.1GB"],
        ["--memory 0.1GB", "more than 600 MiB", "1 simulation at"],
    ),
    "grid and no grid": (
        ["--no-fixed-point", "--set", "fixed_point=true"],
        ["--no-fixed-point", "--set fixed_point=true", "one of them"],
    ),
    "rule twice": (["--rule", "gap", "--set", "rule=best"], ["--rule gap", "--set rule=best", "one of them"]),
    "unknown rule": (["--rule", "gab"], ["'gab'", "'gap'"]),
    "rule of a module that is not there": (["--rule", "mine:Measure"], ["mine:Measure", "no module mine"]),
    "a rival behind a readout": (
        ["--rule", "spikecp", "--set", "readout=decoded"],
        ["readout = decoded", "spikecp", "plain sum", "plain or choose"],
    ),
    "fine-tuning that does not happen": (
        ["--setting", RESNET, "--set", "fine_tune_steps=2"],
        ["fine_tune_steps=2 changes nothing", "fine_tune_epochs above 0"],
    ),
    "fine-tuning over no epochs": (
        ["--set", "fine_tune_epochs=0", "--set", "fine_tune_rate=0.1"],
        ["fine_tune_rate=0.1"],
    ),
    "a percentile of nothing": (["--set", "threshold_percentile=90"], ["threshold_percentile=90", "set initial_weights too"]),
    "decay of nothing": (
        ["--set", "decay_norms=false", "--set", "weight_decay=0"],
        ["decay_norms=false", "weight_decay"],
    ),
    "a smoothing that nobody reads": (["--rule", "patience", "--set", "alpha=3"], ["alpha=3", "reads a smoothing"]),
    "half a smoothing": (["--rule", "gap", "--set", "smoothing=sum"], ["smoothing=sum", "both smoothing and alpha"]),
    "neither true nor false": (["--set", "fixed_point=maybe"], ["fixed_point=maybe", "true or false"]),
    "option": (["--colour", "red"], ["--colour"]),
}
SWEEPS = {
    "neither grid nor study": ([], ["--grid FIELD=A,B,C", "--study FIELD=LOW..HIGH"]),
    "both": (["--grid", "time_steps=4,8", "--study", "alpha=1..2"], ["give either a grid"]),
    "grid without values": (["--grid", "time_steps"], ["--grid time_steps", "--grid time_steps=8,16,32"]),
    "an empty value": (["--grid", "time_steps=4,,8"], ["time_steps="]),
    "grid value": (["--grid", "time_steps=4,x"], ["time_steps=x", "whole number"]),
    "grid field": (["--grid", "colour=1,2"], ["'colour' is unknown", "time_steps"]),
    "grid field of the other method": (["--grid", "levels=2,4"], ["'levels'", VGG]),
    "grid twice": (["--grid", "time_steps=4", "--grid", "time_steps=8"], ["time_steps is given twice"]),
    "swept and set": (["--grid", "time_steps=4,8", "--set", "time_steps=6"], ["time_steps is swept", "6"]),
    "seed": (["--grid", "seed=0,-1"], ["seed=-1"]),
    "study upside down": (["--study", "alpha=2..1"], ["alpha=2..1", "below"]),
    "study of text": (["--study", "smoothing=sum..mean"], ["smoothing", "list its values"]),
    "study's upper end": (["--study", "batch_size=8..2000"], ["batch_size=2000", "1000"]),
    "memory": (["--grid", "time_steps=4,8", "--memory", "8G"], ["--memory 8G", "GiB"]),
    "grid swept and switched off": (
        ["--grid", "fixed_point=true,false", "--no-fixed-point"],
        ["fixed_point is swept", "False"],
    ),
    "a range of truths": (["--study", "fixed_point=false..true"], ["fixed_point", "list its values"]),
    "a grid of one network": (["--grid", "fine_tune_steps=2,4"], ["changes nothing", "fine_tune_epochs above 0"]),
    "a rival of a grid behind a readout": (["--grid", "rule=gap,dt_snn", "--set", "readout=decoded"], ["dt_snn", "plain sum"]),
    "no trials": (["--study", "alpha=1..2", "--trials", "0"], ["--trials"]),
    "device": (["--grid", "time_steps=4,8", "--device", "cuda:7"], ["cuda:7", "--device cpu"]),
}


@pytest.mark.parametrize(("arguments", "names"), BAD.values(), ids=BAD.keys())
def test_a_reproduction_that_cannot_work(dynconf: Command, home: Path, arguments: list[str], names: list[str]) -> None:
    refused(dynconf("reproduce", *arguments), home, *names)


@pytest.mark.parametrize(("arguments", "names"), SWEEPS.values(), ids=SWEEPS.keys())
def test_a_sweep_that_cannot_work(dynconf: Command, home: Path, arguments: list[str], names: list[str]) -> None:
    refused(dynconf("sweep", "--setting", VGG, *arguments), home, *names)


@pytest.mark.parametrize("fault", ["truncated", "corrupt"])
def test_damaged_cifar10(dynconf: Command, home: Path, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "data" / FOLDER
    folder.mkdir(parents=True)
    for name in BINARY_SHA1:
        with (folder / name).open("wb") as file:
            file.truncate(PER_BATCH * RECORD if fault == "corrupt" else 3073)
    answer = dynconf("reproduce", "--profile", "quick", "--setting", RESNET, "--data", tmp_path / "data")
    refused(answer, home, fault, "data_batch_3.bin", "dynconf data fetch cifar10")


@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.parametrize("command", [["reproduce"], ["sweep", "--setting", VGG, "--grid", "time_steps=4,8"]])
def test_a_home_that_cannot_be_written(dynconf: Command, tmp_path: Path, command: list[str], below: str) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    answer = dynconf(*command, "--home", taken / below)
    refused(answer, tmp_path / "home", str(taken), "--home")
    assert taken.read_text() == "a file"


def test_a_checkpoint_of_another_width(dynconf: Command, home: Path, tmp_path: Path) -> None:
    from dynconf_core.networks.checkpoint import save_checkpoint
    from dynconf_core.schemes.network import described

    (narrow,) = Request(settings=(VGG,), overrides={"width": 1 / 16}).plans()
    save_checkpoint(described(narrow.network(), 0), {}, tmp_path / "narrow.pt")
    answer = dynconf("reproduce", "--setting", VGG, "--checkpoint", f"{VGG}={tmp_path / 'narrow.pt'}")
    refused(answer, home, "narrow.pt", "shape", "width")


def test_a_checkpoint_that_is_none(dynconf: Command, home: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)))
    answer = dynconf("reproduce", "--setting", VGG, "--checkpoint", f"{VGG}={tmp_path / 'noise.pt'}")
    refused(answer, home, "noise.pt", "cannot be read")


def test_debug_shows_the_traceback(dynconf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dynconf", "reproduce", "--profile", "nope", "--debug"])
    with pytest.raises(InputError, match="nope"):
        cli.main()


def test_settings_lists_the_eight(dynconf: Command, home: Path) -> None:
    answer = dynconf("settings")
    assert answer.code == 0
    for name in SETTINGS:
        assert name in answer.out
    assert "94.27 @ 27" in answer.out
    assert not home.exists()


def test_settings_as_json(dynconf: Command) -> None:
    answer = dynconf("settings", "--json")
    content = json.loads(answer.out)
    assert (answer.code, content["schema"], list(content["settings"])) == (0, 2, [*SETTINGS, *FURTHER])
    entry = content["settings"][RESNET]
    assert (entry["smoke"]["time_steps"], entry["smoke"]["levels"], "bits" in entry["smoke"]) == (32, 4, False)
    assert (entry["paper"]["time_steps"], entry["paper"]["label"]) == (27, "S")
    assert content["settings"]["cifar10-vgg16-qcfs"]["paper"] is None


@pytest.mark.parametrize("command", [["explain", VGG], ["traces", VGG, "--split", "test", "--out", "t.npz"]])
def test_looking_for_what_was_made_of_given_weights(dynconf: Command, home: Path, command: list[str]) -> None:
    answer = dynconf(*command, "--checkpoint", f"{VGG}=gone-{{seed}}.pt", "--seed", "2")
    assert answer.code == 2 and "gone-2.pt does not exist" in answer.error
    answer = dynconf(*command, "--checkpoint", f"{RESNET}=a.pt")
    assert answer.code == 2 and "not among the chosen settings" in answer.error


def test_explain_on_an_empty_home(dynconf: Command, home: Path) -> None:
    answer = dynconf("explain", VGG, "--json")
    content = json.loads(answer.out)
    assert (answer.code, content["schema"], content["setting"]) == (0, 2, VGG)
    assert [line["stage"] for line in content["stages"]] == [stage.name for stage in STAGES]
    assert {line["outcome"] for line in content["stages"]} == {"miss"}
    assert "no artefact" in content["stages"][0]["reason"]
    assert not home.exists()
    shown = dynconf("explain", VGG)
    assert shown.code == 0
    assert all(stage.name in shown.out for stage in STAGES)


def test_explain_reads_what_is_in_files_only_if_asked(dynconf: Command, home: Path) -> None:
    made = chain(home, data=DATASETS.get("digits").digest(home))

    def outcomes(*arguments: str) -> tuple[list[str], str]:
        shown = dynconf("explain", VGG, *arguments).out
        return [line.split()[1] for line in shown.splitlines()[: len(STAGES)]], shown

    assert outcomes() == (["hit"] * 6, outcomes()[1]) and "--contents" in outcomes()[1]
    file = made["collect_test"].folder / "file"
    text = file.read_text()
    file.write_text(text.upper())
    assert outcomes()[0] == ["hit"] * 6, "the size is the same"
    assert outcomes("--contents")[0] == ["hit", "hit", "hit", "miss", "hit", "miss"]
    assert "--contents" not in outcomes("--contents")[1]
    file.write_text(text + "more")
    found, shown = outcomes()
    assert found == ["hit", "hit", "hit", "miss", "hit", "miss"] and "damaged" in shown


def test_explain_follows_the_device_only_without_a_grid(dynconf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    monkeypatch.setattr("dynconf_flows.command.explain.explained", lambda request, contents: (asked.append(request), [])[1])
    for arguments in ([], ["--no-fixed-point"], ["--set", "fixed_point=false"], ["--memory", "3 gib"]):
        assert dynconf("explain", VGG, *arguments).code == 0
    assert [plan.fixed_point for request in asked for plan in request.plans()] == [True, False, False, True]
    assert [request.memory_share() for request in asked] == [None, None, None, 3 * 2**30 // 2]


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 2**33), ("512 MiB", 2**29), ("1.5kB", 1500), (" 2gb ", 2 * 10**9), (".5TiB", 2**39), ("1024KiB", 2**20)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "8", "GiB", "8 G", "-1GiB", "1e3MB", "8GiBs", "8,5GiB", "٣GiB", "0.0001KiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=r"--memory .*such as 8GiB"):
        size_in_bytes(text, "--memory")


OTHERS = {
    "explain an unknown setting": (["explain", "nope"], ["'nope' is unknown", VGG]),
    "explain without data": (["explain", VGG, "--profile", "quick"], [FOLDER, "dynconf data fetch cifar10"]),
    "traces without a run": (["traces", VGG, "--split", "test", "--out", "t.npz"], ["test traces", "dynconf reproduce"]),
    "traces of another split": (["traces", VGG, "--split", "train", "--out", "t.npz"], ["'train'", "calibration or test"]),
    "traces of an unknown setting": (["traces", "nope", "--split", "test", "--out", "t.npz"], ["'nope' is unknown"]),
    "user interface without a run": (["ui"], ["mlflow.db does not exist", "dynconf reproduce"]),
    "traces into a folder": (["traces", VGG, "--split", "test", "--out", "t"], ["--out t", ".npz"]),
    "points of a grid": (["sweep", "--setting", VGG, "--grid", "alpha=1,2", "--trials", "3"], ["--trials 3", "study"]),
    "study of one value": (["sweep", "--setting", VGG, "--study", "alpha=1-100"], ["alpha=1-100", "LOW..HIGH"]),
    "unknown data set": (["data", "fetch", "mnist"], ["'mnist' is unknown", "cifar10, cifar100, imagenette"]),
    "data set that cannot be fetched": (
        ["data", "fetch", "imagenet"],
        ["'imagenet'", "cifar10, cifar100, imagenette can", "licence"],
    ),
    "unknown command": (["reproduct"], ["reproduct"]),
    "sweep of no setting": (["sweep"], ["--setting"]),
}


@pytest.mark.parametrize(("arguments", "names"), OTHERS.values(), ids=OTHERS.keys())
def test_other_commands_that_cannot_work(
    dynconf: Command, home: Path, tmp_path: Path, arguments: list[str], names: list[str]
) -> None:
    refused(dynconf(*arguments), home, *names)
    assert not (tmp_path / "t.npz").exists()


def test_help_is_quick_to_import() -> None:
    code = "import sys, dynconf_flows.command.main; print(sorted({'torch', 'prefect', 'mlflow', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_version(dynconf: Command) -> None:
    answer = dynconf("--version")
    assert (answer.code, answer.out.strip()) == (0, "0.1.0")


def test_a_taken_port(dynconf: Command, home: Path) -> None:
    home.mkdir()
    (home / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = dynconf("ui", "--port", str(port))
    assert answer.code == 2 and f"port {port} is in use" in answer.error


def test_the_command_of_the_user_interface(tmp_path: Path) -> None:
    """It serves the address it is given and nothing else, and imports nothing from the current folder."""
    command, environment = server_command("127.0.0.1", 5999, "sqlite:///home with spaces/mlflow.db")
    assert command[command.index("--host") + 1] == "127.0.0.1" and command[command.index("--port") + 1] == "5999"
    assert command[command.index("--backend-store-uri") + 1] == "sqlite:///home with spaces/mlflow.db"
    assert "-P" in command and environment["PYTHONSAFEPATH"] == "1"


def test_an_address_that_this_machine_does_not_have(dynconf: Command, home: Path) -> None:
    home.mkdir()
    (home / "mlflow.db").touch()
    answer = dynconf("ui", "--host", "no such host")
    assert answer.code == 2 and "--host no such host" in answer.error
