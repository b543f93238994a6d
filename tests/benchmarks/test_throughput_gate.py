"""The verdict on throughput, on made-up measurements in pytest-benchmark's format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import throughput
from benchmarks.measure import calibration
from benchmarks.test_throughput import FIGURES

NAMES = list(FIGURES)
REFERENCE = {name: its["ratio"] for name, its in json.loads(throughput.REFERENCE.read_text())["figures"].items()}
SLOWER, FASTER = 1.01 + throughput.TOLERANCE, 0.5


def measurement(path: Path, **changes: object) -> Path:
    """A file in which everything takes as long as in the reference, but what ``changes`` names by a factor or drops."""
    path.write_text(
        json.dumps(
            {
                "benchmarks": [
                    {
                        "param": name,
                        "extra_info": {
                            "calibrations": was * factor if isinstance(factor, float) else factor,
                            "rounds": 3,
                            "threads": 1,
                            "machine": {"processor": "made up", "cores": 3, "cpu_capability": "none"},
                            "versions": {"torch": "0"},
                        },
                    }
                    for name, was in REFERENCE.items()
                    if (factor := changes.get(name, 1.0)) is not None
                ]
                + [{"param": "another benchmark", "extra_info": {"ratio": 2.0}}]
            }
        )
    )
    return path


def test_the_calibration_is_no_decay_to_denormal_numbers():
    """They made it three times as long on one processor as on another, beside the same code of ours."""
    assert 0.1 < float(calibration()().abs().mean()) < 1


def test_the_reference_has_what_is_measured():
    assert list(REFERENCE) == NAMES


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (FASTER, 0), (SLOWER - 0.02, 0), (SLOWER, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_slower_by_more_than_the_tolerance_fails(tmp_path, capsys, name, factor, code):
    assert throughput.main([str(measurement(tmp_path / "now.json", **{name: factor}))]) == code
    assert (f"Slower: {name} takes" in capsys.readouterr().out) == (code == 1)


def test_the_command_says_so_too(tmp_path):
    path = measurement(tmp_path / "now.json", **{NAMES[0]: SLOWER, NAMES[1]: FASTER})
    done = subprocess.run([sys.executable, throughput.__file__, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("Slower: ")) == (1, 1), done.stdout + done.stderr


def test_of_several_files_the_median_counts(tmp_path):
    paths = [
        str(measurement(tmp_path / f"{number}.json", **{NAMES[0]: factor}))
        for number, factor in enumerate((SLOWER, SLOWER, 1.0))
    ]
    assert [throughput.main(paths), throughput.main([*paths, paths[-1]])] == [1, 0]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 0.0, -1.0, "fast"])
def test_what_was_not_measured_is_an_error(tmp_path, capsys, value):
    assert throughput.main([str(measurement(tmp_path / "now.json", **{NAMES[0]: value}))]) == 3
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and NAMES[0] in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        *(None, "no JSON", "[]", "[1]", "{}", '{"benchmarks": null}', '{"benchmarks": [1]}'),
        '{"benchmarks": [{"param": "x", "extra_info": {}}]}',
        '{"benchmarks": [{"extra_info": {"calibrations": 1.0}}]}',
    ],
)
def test_a_file_without_measurements_is_an_error(tmp_path, capsys, text):
    path = tmp_path / "now.json"
    if text is not None:
        path.write_text(text)
    assert throughput.main([str(path)]) == 3
    assert throughput.main([str(path), "--write", "--reference", str(tmp_path / "reference.json")]) == 3
    assert capsys.readouterr().err.count("Error: ") == 2 and not (tmp_path / "reference.json").exists()


@pytest.mark.parametrize("text", ["{}", '{"figures": {"x": 1}}', "[]"])
def test_a_reference_that_is_none_is_an_error(tmp_path, capsys, text):
    (tmp_path / "reference.json").write_text(text)
    now = measurement(tmp_path / "now.json")
    assert throughput.main([str(now), "--reference", str(tmp_path / "reference.json")]) == 3
    assert "--write" in capsys.readouterr().err


def test_a_reference_that_lacks_something_is_an_error(tmp_path, capsys):
    reference, now = tmp_path / "reference.json", measurement(tmp_path / "now.json")
    few = measurement(tmp_path / "few.json", **{NAMES[0]: None})
    assert throughput.main([str(few), "--write", "--reference", str(reference)]) == 0
    assert throughput.main([str(now), "--reference", str(reference)]) == 3
    assert NAMES[0] in capsys.readouterr().err


def test_measurements_that_say_not_where_they_are_of_are_no_reference(tmp_path, capsys):
    path = measurement(tmp_path / "now.json")
    path.write_text(path.read_text().replace('"rounds"', '"round"'))
    assert throughput.main([str(path), "--write", "--reference", str(tmp_path / "reference.json")]) == 3
    assert "rounds" in capsys.readouterr().err and not (tmp_path / "reference.json").exists()


def test_another_machine_is_named(tmp_path, capsys):
    now, reference = measurement(tmp_path / "now.json"), tmp_path / "reference.json"
    assert throughput.main([str(now)]) == 0
    assert "another machine: processor, cores, cpu_capability, versions differ" in capsys.readouterr().out
    assert throughput.main([str(now), "--write", "--reference", str(reference)]) == 0
    assert throughput.main([str(now), "--reference", str(reference)]) == 0
    assert "another machine" not in capsys.readouterr().out


def test_write_renews_the_reference(tmp_path):
    reference = tmp_path / "reference.json"
    paths = [
        str(measurement(tmp_path / f"{number}.json", **{NAMES[0]: factor})) for number, factor in enumerate((1.0, 3.0))
    ]
    assert throughput.main([*paths, "--write", "--reference", str(reference)]) == 0
    made = json.loads(reference.read_text())
    was = REFERENCE[NAMES[0]]
    assert made["figures"][NAMES[0]] == pytest.approx({"ratio": 2 * was, "lowest": was, "highest": 3 * was}, abs=1e-4)
    assert (made["repetitions"], made["processor"], made["cores"], made["threads"]) == (2, "made up", 3, 1)
    assert throughput.main([*paths, "--reference", str(reference)]) == 0
    assert throughput.main([paths[1], "--reference", str(reference)]) == 1
