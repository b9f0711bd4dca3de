import pytest

from ln_kernels.benchmark import results
from ln_kernels.benchmark.costs import cost_of
from ln_kernels.benchmark.operations import KERNELS, OPERATIONS
from ln_kernels.benchmark.points import GRIDS, Point, grid_shapes, points
from ln_kernels.benchmark.results import Launches, Measured, ResultsError
from ln_kernels.benchmark.stored import stored
from ln_kernels.benchmark.targets import share_target, verdicts
from tests.ln_kernels import benchmarks

BIG = (65536, 4096)


def found_of(report):
    return {verdict.name.split(",")[0].split(" >=")[0]: verdict for verdict in verdicts(report)}


def ms_at(share, shape, copy_gbps=4000.0):
    fused = benchmarks.result(*shape, {}).fused_bytes
    return fused / (share * copy_gbps) / 1e6


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ((65536, 4096), 0.92),
        ((8192, 32768), 0.92),
        ((4096, 65536), 0.85),
        ((1024, 262144), 0.60),
        ((4096, 8192), None),  # 134 MB
        ((1024, 524288), None),
    ],
)
def test_a_share_of_bandwidth_is_asked_for_where_memory_decides(shape, share):
    assert share_target(benchmarks.result(*shape, {})) == share


@pytest.mark.parametrize(("share", "met"), [(0.93, True), (0.91, False)])
def test_a_share_below_its_target_is_a_miss(share, met):
    report = benchmarks.report(benchmarks.result(*BIG, {"layer_norm": ms_at(share, BIG)}))
    verdict = found_of(report)["share of copy"]
    assert verdict.met is met
    assert verdict.figure == f"least {share:.3f}"


def test_each_shape_and_the_mean_are_judged_against_the_best_competitor():
    report = benchmarks.report(
        benchmarks.result(4096, 256, {"layer_norm": 1.0, "eager": 3.0, "fla": 0.98}),
        benchmarks.result(4096, 512, {"layer_norm": 1.0, "eager": 3.0, "fla": 0.9}),
    )
    found = found_of(report)
    each = found["speed in units of the best competitor's"]
    assert each.misses == ("layer_norm bfloat16 4096x512: 0.900 (best: fla)",)
    mean = found["geometric mean of these"]
    assert mean.misses == ("layer_norm bfloat16: 0.939",)


def test_who_was_not_timed_is_no_competitor():
    timed = benchmarks.result(4096, 256, {"layer_norm": 1.0})
    wrong = Measured("fla", False, "wrong", note="off")
    report = benchmarks.report(results.Result(**{**vars(timed), "sides": (*timed.sides, wrong)}))
    assert "speed in units of the best competitor's" not in found_of(report)
    assert [side.name for _, side in report.faults] == ["fla"]


def test_launch_overhead_is_judged_against_eager():
    point = Point("launch", "layer_norm", "float32", 4, 256)
    calls = {"layer_norm": benchmarks.timing(0.012), "eager": benchmarks.timing(0.010)}
    report = benchmarks.report()
    report.launches.append(Launches(point, ("layer_norm",), calls))
    verdict = found_of(report)["launch overhead in units of PyTorch eager's <= 1"]
    assert verdict.misses == ("layer_norm float32: 1.20",)


def test_a_stored_figure_is_scaled_and_marked():
    point = Point("large", "layer_norm", "bfloat16", *BIG)
    side = stored("quack", point, 10**9, 2000.0)
    assert side is not None
    assert side.status == "stored"
    assert side.timing.ms == pytest.approx(1e9 / (0.66 * 2000.0) / 1e6)
    assert "measured 2026-11 on an H200" in side.note
    assert stored("quack", Point("large", "rms", "bfloat16", *BIG), 10**9, 2000.0) is None
    assert stored("fla", Point("default", "layer_norm", "bfloat16", 4096, 65536), 1, 1.0) is None


def test_the_cost_of_a_layer_norm_is_the_table_of_the_decomposition():
    b_s, h, a = 64, 1000, 2
    cost = cost_of(OPERATIONS["layer_norm"], "bfloat16", b_s, h)
    assert cost.flops == 8 * b_s * h + 2 * b_s
    assert cost.reads == 3 * b_s * h * a + 3 * b_s * a + 2 * h * a
    assert cost.writes == 2 * b_s * h * a + 3 * b_s * a
    assert cost.fused_bytes == 2 * b_s * h * a + 2 * h * a


@pytest.mark.parametrize(
    ("operation", "tensors", "vectors", "statistics"),
    [
        ("layer_norm", 2, 2, 0),
        ("native_layer_norm", 2, 2, 2),
        ("residual", 3, 2, 0),
        ("residual_sum", 4, 2, 0),
        ("bias", 2, 3, 0),
        ("gated", 3, 2, 0),
        ("rms", 2, 1, 0),
        ("gated_rms", 3, 1, 0),
    ],
)
def test_one_launch_moves_each_tensor_once(operation, tensors, vectors, statistics):
    cost = cost_of(OPERATIONS[operation], "float16", 30, 500)
    assert cost.fused_bytes == 2 * (tensors * 30 * 500 + vectors * 500) + 4 * statistics * 30
    assert cost.fused_bytes < cost.bytes


def test_the_grids_hold_what_the_targets_are_about():
    assert {n for _, n in GRIDS["default"]} >= {2**k for k in range(8, 16)}
    assert {1000, 5000, 12345, 65536} <= {n for _, n in GRIDS["default"]}
    assert {rows for rows, _ in GRIDS["few"]} == {1, 4, 16, 64}
    assert all(2 * 2 * rows * n > 256e6 for rows, n in GRIDS["large"])
    every = grid_shapes("all")
    assert len({shape for _, shape in every}) == len(every)
    assert len(points(["layer_norm"], ["float16", "float32"], every)) == 2 * len(every)


def test_every_public_function_takes_part():
    assert {kernel.operation.name for kernel in KERNELS.values()} == set(OPERATIONS)


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "report.json"
    report = benchmarks.report(benchmarks.result(4096, 256, {"layer_norm": 1.0, "eager": 2.0}))
    results.write(report, path)
    assert results.read(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_report_of_another_format_is_refused(tmp_path):
    path = tmp_path / "report.json"
    report = benchmarks.report()
    report.format = 2
    results.write(report, path)
    with pytest.raises(ResultsError, match="format=2, must be 1"):
        results.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_file_that_is_no_report_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"other\.json"):
        results.read(path)


def test_reports_of_one_card_are_merged_and_others_refused():
    one, two = benchmarks.report(copy_gbps=4000.0), benchmarks.report(copy_gbps=4100.0)
    two.interrupted = True
    both = results.merged([one, two])
    assert both.copy_gbps == 4100.0
    assert both.interrupted
    two.card = {"name": "another card"}
    with pytest.raises(ResultsError, match="different cards"):
        results.merged([one, two])
