"""What is installed from a wheel is whole: policies, migrations and generated code travel with the packages that need them."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests.support.tree import ROOT, tracked


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    done = subprocess.run([*build, "./sdk", "./registry"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {}
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            names[wheel.name.split("-")[0]] = set(archive.namelist())
    return names


@pytest.mark.parametrize(("distribution", "folder"), [("model_organisms", "sdk"), ("model_organisms_registry", "registry")])
def test_every_module_is_in_its_wheel(wheels, distribution, folder):
    wanted = {path.removeprefix(f"{folder}/src/") for path in tracked() if path.startswith(f"{folder}/src/")}
    assert wanted <= wheels[distribution]


def test_the_policies_travel_with_the_registry(wheels):
    wanted = {f"model_organisms_registry/{path}" for path in tracked() if path.startswith("policies/")}
    assert wanted
    assert wanted <= wheels["model_organisms_registry"]


def test_generated_code_travels_with_the_sdk(wheels):
    assert {"buf/validate/validate_pb2.py", "model_organisms/v1/access_pb2_grpc.py"} <= wheels["model_organisms"]
