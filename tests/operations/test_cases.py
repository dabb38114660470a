"""The YAML cases: cases/<module>.<operation>/*.yaml and facts/<module>.<Fact>/*.yaml, one situation a file."""

from pathlib import Path

from pyinfra_testing.facts import make_fact_tests  # type: ignore[import-untyped]
from pyinfra_testing.operations import make_operation_tests  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent

for _directory in sorted((HERE / "cases").iterdir()):
    globals()[f"Test_{_directory.name}"] = make_operation_tests("operations", _directory.name, _directory)
for _directory in sorted((HERE / "facts").iterdir()):
    globals()[f"TestFact_{_directory.name}"] = make_fact_tests(
        "operations.facts", _directory.name, _directory
    )
