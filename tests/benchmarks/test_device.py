"""The measurement for a lent device runs from end to end, so that no minute of one is lost to a mistake in it."""

import json

from benchmarks.device import main


def test_everything_is_measured(tmp_path):
    path = tmp_path / "device.json"
    options = ["--device", "cpu", "--profiles", "smoke", "--precisions", "bf16", "fp32", "--seconds", "0.05"]
    main([*options, "--processes", "2", "--width", "256", "--json", str(path)])
    found = json.loads(path.read_text())
    assert [row["precision"] for row in found["rates"]] == ["bf16", "fp32"]
    for row in found["rates"]:
        assert row["flop_per_second"] > 0 and 0 < row["updates_per_second"] < 1e4
        assert row["projected_minutes"] > 0 and row["act_per_second"] > 0
    assert found["shared_updates_per_second"]["2"] > 0
