"""The cost table of the reference decomposition."""

import pytest

from oracle.cost import Step, layer_norm_cost

B, S, H, A, W = 3, 5, 7, 2, 4


def test_cost_steps_are_those_of_the_table() -> None:
    cost = layer_norm_cost(B * S, H, element_bytes=A, parameter_bytes=W)
    assert cost.steps == (
        Step("var_mean", 4 * B * S * H, B * S * H * A, 2 * B * S * A),
        Step("rsqrt", 2 * B * S, B * S * A, B * S * A),
        Step("normalize", 2 * B * S * H, B * S * H * A + 2 * B * S * A, B * S * H * A),
        Step("affine", 2 * B * S * H, B * S * H * A + 2 * H * W, B * S * H * A),
    )


def test_cost_totals_are_those_of_the_table() -> None:
    cost = layer_norm_cost(B * S, H, element_bytes=A, parameter_bytes=W)
    assert cost.flops == 8 * B * S * H + 2 * B * S
    assert cost.reads == 3 * B * S * H * A + 3 * B * S * A + 2 * H * W
    assert cost.writes == 2 * B * S * H * A + 3 * B * S * A
    assert cost.bytes == cost.reads + cost.writes
    assert cost.fused_bytes == 2 * B * S * H * A + 2 * H * W


def test_cost_conversions_move_everything_once_more_each() -> None:
    plain = layer_norm_cost(B * S, H, element_bytes=A, parameter_bytes=W)
    cost = layer_norm_cost(B * S, H, element_bytes=A, parameter_bytes=W, converts=True)
    moved = B * S * H * A
    assert cost.steps[0] == Step("convert", 0, moved, moved)
    assert cost.steps[-1] == Step("convert_back", 0, moved, moved)
    assert cost.steps[1:-1] == plain.steps
    assert cost.flops == plain.flops
    assert cost.fused_bytes == plain.fused_bytes


def test_cost_between_conversions_is_counted_in_the_compute_format() -> None:
    cost = layer_norm_cost(
        B * S, H, element_bytes=2, parameter_bytes=2, converts=True, compute_bytes=4
    )
    inner = layer_norm_cost(B * S, H, element_bytes=4, parameter_bytes=2)
    assert cost.steps[0] == Step("convert", 0, B * S * H * 2, B * S * H * 4)
    assert cost.steps[-1] == Step("convert_back", 0, B * S * H * 4, B * S * H * 2)
    assert cost.steps[1:-1] == inner.steps
    assert cost.fused_bytes == 2 * B * S * H * 2 + 2 * H * 2


@pytest.mark.parametrize(("has_weight", "has_bias"), [(True, False), (False, True)])
def test_cost_of_one_parameter_is_half_the_affine_step(has_weight: bool, has_bias: bool) -> None:
    cost = layer_norm_cost(
        B * S, H, element_bytes=A, parameter_bytes=W, has_weight=has_weight, has_bias=has_bias
    )
    assert cost.steps[-1] == Step("affine", B * S * H, B * S * H * A + H * W, B * S * H * A)
    assert cost.fused_bytes == 2 * B * S * H * A + H * W


def test_cost_without_parameters_has_no_affine_step() -> None:
    cost = layer_norm_cost(
        B * S, H, element_bytes=A, parameter_bytes=W, has_weight=False, has_bias=False
    )
    assert [step.name for step in cost.steps] == ["var_mean", "rsqrt", "normalize"]
    assert cost.fused_bytes == 2 * B * S * H * A


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("n_rows", 0),
        ("n_cols", 0),
        ("element_bytes", 1),
        ("parameter_bytes", 1),
        ("compute_bytes", 1),
    ],
)
def test_cost_refuses_impossible_sizes(name: str, least: int) -> None:
    arguments = {"n_rows": 1, "n_cols": 1, "element_bytes": 2, "parameter_bytes": 2}
    arguments[name] = least - 1
    with pytest.raises(ValueError, match=f"{name}={least - 1}, must be >= {least}"):
        layer_norm_cost(
            arguments.pop("n_rows"),
            arguments.pop("n_cols"),
            **arguments,  # type: ignore[arg-type]
        )
