"""Kernels compiled for GPUs that need not be there, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.case import Case, FlagValue, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.compiling.gpus import GPUS, failure, find_gpu
from fuzz.compiling.job import Bounds, compile_cases
from fuzz.gating.outcome import CompiledKernel, CompileReport
from tests.fuzz.compiling import fatal_kinds as kinds

HERE = Path(__file__).parent
KERNELS = HERE / "kernels.py"
FATAL = HERE / "fatal.py"
H100 = find_gpu("cuda:90")
MI300 = find_gpu("hip:gfx942")


def make_case(
    target: str,
    *,
    shape: tuple[int, ...] = (2, 40),
    strides: tuple[int, ...] = (),
    offset: int = 0,
    launch: Launch | None = None,
    relations: tuple[str, ...] = (),
    **flags: FlagValue,
) -> Case:
    x = TensorCase(
        "x", "float32", shape, strides or contiguous_strides(shape), offset, Recipe("normal")
    )
    return Case(target, shape, 1, (x,), flags, 1e-5, launch or Launch(), 1, relations)


def of(report: CompileReport, target: str, gpu: str | None = None) -> list[CompiledKernel]:
    return [
        kernel
        for kernel in report.kernels
        if kernel.target.endswith(f":{target}") and gpu in (None, kernel.gpu)
    ]


def line_of(file: Path, text: str) -> int:
    return next(i for i, s in enumerate(file.read_text().splitlines(), 1) if text in s)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing comes out of the cache of earlier runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


PLAIN = [
    make_case("kernels.py:scale", relations=("row_alone",)),
    # Its specialisation is that of the first.
    make_case("kernels.py:scale", shape=(3, 40)),
    make_case("kernels.py:scale", strides=(48, 1), offset=1, relations=("contiguous",)),
    make_case("kernels.py:scale", launch=Launch(block=64)),
    make_case("kernels.py:broken_branch", is_rms_norm=False),
    make_case("kernels.py:broken_branch", is_rms_norm=True),
    *(
        make_case(f"kernels.py:{name}")
        for name in (
            "greedy",
            "spilling",
            "many_threads",
            "tuned",
            "on_a_gpu",
            "reads_a_result",
            "without_triton",
            "on_a_cpu",
            "missing",
        )
    ),
]
STEPS: list[tuple[str, int, int]] = []


@pytest.fixture(scope="module")
def report() -> CompileReport:
    return compile_cases(PLAIN, folder=HERE, progress=lambda *step: STEPS.append(step))


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_job_compiles_each_specialisation_once_for_every_gpu(report, gpu):
    found = of(report, "scale", gpu)
    assert [failure(kernel) for kernel in found] == ["", "", ""]
    # Base addresses that 16 divides, and one that it does not; the last launch is not the default.
    assert ["x_ptr: *fp32:16" in kernel.specialisation for kernel in found] == [True, False, True]
    assert ["BLOCK=64" in kernel.specialisation for kernel in found] == [False, False, True]
    assert all(kernel.registers and kernel.registers < 100 for kernel in found)
    assert {kernel.spilled_bytes for kernel in found} == {0}
    assert {kernel.shared_bytes for kernel in found} == {0}


def test_job_counts_what_it_compiled(report):
    assert report.wanted == report.compiled == len(report.kernels)
    assert report.seconds > 0
    for gpus in ("cuda", "hip"):
        assert (f"cases for {gpus}", len(PLAIN), len(PLAIN)) in STEPS
    assert max(STEPS[-1][1:]) == STEPS[-1][1]


def test_job_names_the_place_of_a_kernel(report):
    (kernel,) = of(report, "spilling", "cuda 90")
    assert kernel.kernel == "_centred"
    assert str(kernel.place) == f"kernels.py:{line_of(KERNELS, 'def _centred')}"


def test_job_tells_the_line_of_an_error_in_one_branch(report):
    for gpu in GPUS:
        sound, broken = of(report, "broken_branch", gpu.name)
        assert ("IS_RMS=False" in sound.specialisation, failure(sound)) == (True, "")
        assert "IS_RMS=True" in broken.specialisation
        assert "'tensor' object has no attribute 'squared'" in failure(broken)
        assert str(broken.place) == f"kernels.py:{line_of(KERNELS, 'no such method')}"


def test_job_tells_of_too_much_shared_memory(report):
    for gpu in GPUS[:3]:
        (kernel,) = of(report, "greedy", gpu.name)
        assert kernel.error == ""
        assert kernel.shared_bytes == 256 * 1024
        assert failure(kernel).startswith("needs 262144 bytes of shared memory")


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_job_counts_spilled_bytes(report, gpu):
    (kernel,) = of(report, "spilling", gpu)
    assert failure(kernel) == ""
    assert kernel.spilled_bytes >= 4
    # The file asks while it is imported which GPU it is for.
    assert ("waves_per_eu=8" in kernel.specialisation) == (gpu == MI300.name)
    assert ("maxnreg=32" in kernel.specialisation) == (gpu != MI300.name)


def test_job_refuses_more_threads_than_a_program_can_have(report):
    said = {kernel.gpu: failure(kernel) for kernel in of(report, "many_threads")}
    assert said.pop(MI300.name) == "needs 2048 threads a program, must be at most 1024"
    assert set(said.values()) == {""}


def test_job_compiles_every_configuration_of_an_autotuner(report):
    for gpu in GPUS:
        found = of(report, "tuned", gpu.name)
        assert ["BLOCK=64" in kernel.specialisation for kernel in found] == [True, False]
        assert ["BLOCK=128" in kernel.specialisation for kernel in found] == [False, True]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("on_a_gpu", ["AssertionError", "assert x.is_cuda", "cuda 100, hip gfx942"]),
        ("reads_a_result", ["ValueRead", "if y.max() > 0"]),
        ("without_triton", ["no case launches a Triton kernel"]),
        ("on_a_cpu", ["runs on cpu alone"]),
        ("missing", ["missing is no target of the file"]),
    ],
)
def test_job_tells_by_name_which_target_cannot_be_compiled(report, target, words):
    (said,) = [error for error in report.errors if error.startswith(f"kernels.py:{target}: ")]
    assert [word for word in words if word not in said] == []


def test_job_compiles_what_was_launched_before_a_wrapper_failed(report):
    assert len(of(report, "reads_a_result")) == len(GPUS)
    assert len(report.errors) == 5


def test_job_survives_what_ends_its_processes():
    cases = [make_case("fatal.py:fatal", group_size=kind) for kind in kinds.ALL]
    cases += [make_case("fatal.py:deadly", group_size=kind) for kind in (1, 2, 3)]
    bounds = Bounds(memory=1 << 30)
    report = compile_cases(cases, gpus=(H100,), folder=HERE, bounds=bounds, workers=1)
    said = dict(zip(kinds.ALL, map(failure, of(report, "fatal")), strict=True))
    assert said[kinds.PASSES] == ""
    assert said[kinds.ABORTS] == ("its process ended with SIGABRT: LLVM ERROR: out of registers")
    assert said[kinds.EXITS] == "its process ended with exit code 0"
    assert said[kinds.EATS_MEMORY] == "MemoryError"
    assert said[kinds.IS_ILL_TYPED] == "ptxas: Not a name of any known instruction: 'bogus'"
    # Of the wrapper that dies, what the cases before have launched.
    (kernel,) = of(report, "deadly")
    assert ("BLOCK=32" in kernel.specialisation, failure(kernel)) == (True, "")
    (error,) = report.errors
    assert error.startswith(
        "fatal.py:deadly: the wrapper cannot be called: its process ended with exit code 3; "
        "1 of 3 cases on cuda 90"
    )


def test_job_leaves_out_what_a_case_pins_beyond_a_gpus_threads():
    case = make_case("kernels.py:scale", launch=Launch(block=32, num_warps=32))
    report = compile_cases([case], gpus=(H100, MI300), folder=HERE)
    assert [kernel.gpu for kernel in report.kernels] == [H100.name]
    assert report.errors == ()


def test_job_takes_default_launches_first_up_to_its_limit():
    cases = [
        make_case("kernels.py:scale", launch=Launch(block=32)),
        make_case("kernels.py:scale", launch=Launch(block=64)),
        make_case("kernels.py:scale"),
    ]
    report = compile_cases(cases, gpus=(H100,), limit=2, folder=HERE, workers=1)
    assert (report.wanted, report.compiled) == (3, 2)
    blocks = [kernel.specialisation.partition("BLOCK=")[2] for kernel in report.kernels]
    assert [block.partition(",")[0] for block in blocks] == ["256", "32"]


def test_job_compares_specialisations_of_two_folders(tmp_path):
    """A change of the body leaves the text as it is, and each folder compiles its own."""
    reports = []
    for name, body in (("base", "return x + missing"), ("head", "return x + step")):
        folder = tmp_path / name
        (folder / "own").mkdir(parents=True)
        (folder / "steps.py").write_text(
            f"import triton\n\n@triton.jit\ndef advance(x, step):\n    {body}\n"
        )
        kernel = KERNELS.read_text().replace(", x * eps,", ", steps.advance(x, eps),")
        (folder / "own" / "kernels.py").write_text("import steps\n" + kernel)
        cases = [make_case("own/kernels.py:scale", launch=Launch(block=b)) for b in (64, None)]
        like = [kernel for report in reports for kernel in report.kernels]
        reports.append(
            compile_cases(
                cases,
                gpus=(MI300,),
                limit=1,
                folder=folder,
                foreign=HERE.parents[2],
                workers=1,
                like=like,
            )
        )
    # One is asked for what the other had.
    (base,), (head,) = (report.kernels for report in reports)
    assert "BLOCK=256" in base.specialisation
    assert [report.wanted for report in reports] == [2, 1]
    assert (head.kernel, head.specialisation) == (base.kernel, base.specialisation)
    assert failure(head) == ""
    assert "missing is not defined" in failure(base)
    assert str(base.place) == "steps.py:5"


def test_job_compiles_the_projects_own_kernels():
    flags: dict[str, FlagValue] = {"group_size": 20, "norm_before_gate": True}
    cases = [
        make_case("layer_norm"),
        make_case("layernorm_fn", **flags, is_rms_norm=True),
        make_case("rmsnorm_fn", **flags, is_rms_norm=True),
    ]
    report = compile_cases(cases, gpus=(H100,), workers=1)
    assert report.errors == ()
    assert [failure(kernel) for kernel in report.kernels] == ["", "", ""]
    assert [str(kernel.place).partition(":")[0] for kernel in report.kernels] == [
        "ln_kernels/layer_norm.py",
        "ln_kernels/grouped.py",
        "ln_kernels/grouped.py",
    ]


def test_job_stops_when_it_is_told():
    steps: list[tuple[str, int, int]] = []
    report = compile_cases(
        PLAIN,
        gpus=(H100,),
        folder=HERE,
        workers=1,
        progress=lambda *step: steps.append(step),
        stop=lambda: any(what.startswith("kernels") and done for what, done, _ in steps),
    )
    assert report.errors == ("stopped before everything was compiled",)
    assert 1 <= report.compiled < report.wanted


def test_job_leaves_out_what_must_be_refused():
    case = make_case("layer_norm")
    refused = Case(**{**vars(case), "refusal": "x_zero_dim"})
    assert compile_cases([refused], gpus=(H100,)) == CompileReport(seconds=pytest.approx(0, abs=5))


def test_job_keeps_torch_out_of_the_callers_process():
    code = "import sys, fuzz.compiling.job; assert not {'torch', 'triton'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parents[2])
