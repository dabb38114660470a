import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from operations.plan.artifacts.artifact import Artifact, ServingImage, artifact_path, frozen, partial_path

ENGINE = Artifact("engine", "/data", {"a": 1}, (("docker", "run", "x y"), ("echo", "$HOME")))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("engine", "/data/engines/k"),
        ("weights", "/data/weights/k"),
        ("checkpoint", "/data/checkpoints/k"),
        ("source", "/data/sources/k"),
        ("release", "/data/releases/k"),
    ],
)
def test_artifact_path(kind: str, path: str) -> None:
    assert artifact_path("/data", kind, "k") == path
    assert partial_path(path) == f"{path[:-1]}.k.partial"


def test_key_names_one_path_and_one_unit() -> None:
    assert ENGINE.path == f"/data/engines/{ENGINE.key}"
    assert ENGINE.unit == f"tritonhost-engine-{ENGINE.key}"
    assert ENGINE.title == f"engine {ENGINE.key}"
    assert ENGINE.result == ENGINE.path


def test_artifact_exists_only_once_sealed(tmp_path: Path) -> None:
    engine = replace(ENGINE, data_root=f"{tmp_path}/a b")
    place, partial = Path(engine.path), Path(partial_path(engine.path))

    def there() -> bool:
        return subprocess.run(["sh", "-c", engine.proof], check=False).returncode == 0

    assert not there()
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    assert there()
    # a damaged one, beside what was to take its place and was ended
    partial.mkdir()
    assert not there()


def test_only_kind_and_inputs_make_the_key() -> None:
    assert replace(ENGINE, commands=(), data_root="/other", resumable=True, checksums=False).key == ENGINE.key
    assert replace(ENGINE, inputs={"a": 2}).key != ENGINE.key
    assert replace(ENGINE, kind="checkpoint").key != ENGINE.key


def test_work_script_input_describes_the_artifact() -> None:
    variables = ENGINE.variables()
    assert json.loads(variables.pop("HEAD") + "}") == {
        "kind": "engine",
        "key": ENGINE.key,
        "inputs": {"a": 1},
    }
    assert variables == {
        "FINAL": ENGINE.path,
        "PARTIAL": f"/data/engines/.{ENGINE.key}.partial",
        "RESUMABLE": "0",
        "CHECKSUMS": "1",
        "CONTAINER": ENGINE.unit,
    }
    assert replace(ENGINE, resumable=True, checksums=False).variables()["RESUMABLE"] == "1"
    assert replace(ENGINE, resumable=True, checksums=False).variables()["CHECKSUMS"] == "0"


def test_commands_are_quoted_once() -> None:
    assert ENGINE.body() == "make_it() {\ndocker run 'x y'\necho '$HOME'\n}\n"


def test_an_image_has_a_tag_and_no_directory() -> None:
    image = ServingImage({"source": "pull"}, (("docker", "pull", "r"),))
    assert image.tag == f"tritonhost/serving:{image.key}"
    assert image.unit == f"tritonhost-image-{image.key}"
    assert (image.variables()["FINAL"], image.variables()["CONTAINER"]) == ("", image.unit)
    assert image.tag in image.result
    assert image.body() == "make_it() {\ndocker pull r\n}\n"


def test_frozen() -> None:
    assert frozen([["a", "b"], ["c"]]) == (("a", "b"), ("c",))
