"""The wheel holds the four packages with their data, and nothing else, and works where it is installed alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = {"core", "estimators", "variants", "experiments"}
LEFT_OUT: Final = {f"experiments/maintenance/conformance/{name}.txt" for name in ("references", "requirements")}
"""What `make conformance` installs: it needs a checkout, though the modules of maintenance are shipped as all are."""

BARE: Final = '''
"""A machine that reaches no network and lacks what macOS lacks."""

import os, resource, select, signal, socket

LACKING = {
    os: ["sched_getaffinity", "pidfd_open", "memfd_create", "eventfd", "splice", "copy_file_range", "getrandom"]
    + ["getresuid", "setresuid", "pipe2", "posix_fadvise", "posix_fallocate", "fdatasync", "O_PATH", "O_TMPFILE"]
    + ["getxattr", "setns", "unshare", "waitid"],
    signal: ["pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT"],
    resource: ["RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_SIGPENDING", "prlimit"],
    select: ["epoll"],
    socket: ["SOCK_CLOEXEC", "SOCK_NONBLOCK"],
}
for module, names in LACKING.items():
    for name in names:
        vars(module).pop(name, None)


def connect(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(f"no network: {address}")
    return super(socket.socket, self).connect(address)


socket.socket.connect = connect
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, so that no build folder of ours gets in or is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = ["wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *command, str(folder / "source")], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def tracked() -> list[str]:
    """The files that git knows, and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_wheel_is_the_four_packages_with_models_configs_and_types(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == PACKAGES
    ours = {name for name in tracked() if name.split("/")[0] in PACKAGES} - LEFT_OUT
    assert names == ours
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"core/assets/embedded/model.safetensors", "core/assets/embedded/tokenizer.json"} <= names
    assert {"experiments/configs/demo.gin", "experiments/configs/accelerate/ddp.yaml"} <= names
    assert "experiments/lens/variants.json" in names


def test_an_old_python_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    """As macOS has one of its own."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    command = ["make", "--no-print-directory", "demo", "PYTHON=./old", "SEEDS=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "./old is not Python 3.11 or later; name one that is: make PYTHON=python3.12 demo\n"
    assert done.returncode
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_installed_alone_it_runs_the_demo_where_there_is_no_checkout_git_compiler_home_or_network(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    (site,) = (tmp_path / "env" / "lib").glob("python3.*/site-packages")
    # the other packages are those of the tests; files of this kind are not read in folders named by one
    others = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    (site / "sitecustomize.py").write_text(BARE)
    here = tmp_path / "empty"
    here.mkdir()

    def run(*command: str) -> str:
        environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            [str(python.with_name(command[0])), *command[1:]],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
        return done.stdout

    asked = "import core, os, experiments.cli.main as m; print(core.__file__, m.__file__, hasattr(os, 'pidfd_open'))"
    assert run("python", "-c", asked).split() == [
        str(site / "core" / "__init__.py"),
        str(site / "experiments" / "cli" / "main.py"),
        "False",
    ]
    assert "dr_grpo" in run("grpolab", "list", "variants")
    assert "grpolab lens rloo --age 0 8" in run("grpolab", "describe", "rloo")
    small = ["train.steps = 3", "train.prompts = 4", "evaluation.every = 1", "evaluation.questions = 8"]
    bindings = [word for binding in small for word in ("-b", binding)]
    printed = run("grpolab", "compare", "-c", "demo", "--seeds", "2", *bindings)
    assert "runs/demo: 5 arms x 2 seeds x 3 steps" in printed
    assert "report: runs/demo/report.html" in printed
    manifest = json.loads((here / "runs" / "demo" / "grpo" / "seed=0" / "manifest.json").read_text())
    assert (manifest["status"], manifest["git"]) == ("finished", None)
    (here / "runs" / "demo" / "report.html").unlink()
    run("grpolab", "report", "runs/demo")
    assert (here / "runs" / "demo" / "report.html").is_file()
    assert "rloo" in run("grpolab", "lens", "grpo", "rloo", "--batches", "20")
    assert os.listdir(here) == ["runs"]


BESIDE_AN_ENGINE: Final = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = set(sys.argv[2:])
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import torch
from core import Batch
from core.loop.loss import compute_advantages, step_loss
from core.loop.rewards import filter_groups, shape
from experiments.bridges.variant import variant_of

variant = variant_of("dapo", bindings=["dapo.eps_high = 0.3"])
batch = shape(variant, Batch.of([[1.0, 0.0], [0.0, 1.0]]).having(truncated=torch.zeros(2, 2, dtype=torch.bool)))
batch = filter_groups(variant, batch.having(correct=batch.rewards > 0))
advantages, _ = compute_advantages(variant, batch, None)
logps = torch.zeros(batch.mask.shape, requires_grad=True)
step_loss(variant, batch, logps, advantages).backward()
print(importlib.import_module("core").__file__.startswith(sys.argv[1]), logps.grad.abs().sum() > 0)
"""


def test_the_maths_takes_torch_and_gin_alone_so_that_it_installs_beside_any_engine(wheel: Path, tmp_path: Path) -> None:
    """As `pip install --no-deps grpo-lab gin-config` does; engines pin versions that the bench does not take."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]} - {"torch", "gin-config", "numpy"}
    absent = {
        top for top, names in packages_distributions().items() if {n.lower().replace("_", "-") for n in names} & asked
    }
    assert {"transformers", "accelerate", "scipy", "huggingface_hub", "jinja2"} <= absent
    command = [sys.executable, "-P", "-c", BESIDE_AN_ENGINE, str(tmp_path), *absent]
    done = subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True tensor(True)\n", "")
