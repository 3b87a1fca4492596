"""The wheel holds the four packages with their data, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_is_the_four_packages_with_model_configs_and_types(tmp_path: Path) -> None:
    # built from a copy of what git tracks, so that no build folder of ours gets in or is left behind
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    source = tmp_path / "source"
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = ["wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"core", "estimators", "variants", "experiments"}
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert {"core/assets/embedded/model.safetensors", "core/assets/embedded/tokenizer.json"} <= set(names)
    assert {"experiments/configs/embedded.gin", "experiments/configs/demo.gin"} <= set(names)
    shipped = {name for name in names if name.endswith(".py")}
    ours = {str(p.relative_to(ROOT)) for package in packages for p in (ROOT / package).rglob("*.py")}
    assert shipped == ours
