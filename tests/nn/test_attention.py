import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sowa.nn.attention import FrozenWindowAttention, partition, region_mask, reverse, shared_dropout

WIDTH, HEADS = 16, 4


def weights(seed: int = 0, width: int = WIDTH):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(3 * width, width, generator=g),
        torch.randn(width, width, generator=g),
        torch.randn(width, generator=g),
    )


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_windows_return_to_their_place(batch, rows, window, columns):
    field = torch.arange(batch * rows * window * columns * window * 2.0)
    field = field.reshape(batch, rows * window, columns * window, 2)
    assert torch.equal(reverse(partition(field, window), window, rows * window, columns * window), field)


def test_first_window_is_the_upper_left_square_row_major():
    field = torch.arange(16).reshape(1, 4, 4, 1)
    assert partition(field, 2)[0, 0, :, 0].tolist() == [0, 1, 4, 5]
    assert partition(field, 2)[0, 1, :, 0].tolist() == [2, 3, 6, 7]


def test_offset_table_is_odd_and_ends_at_log2_of_nine_over_three():
    table = FrozenWindowAttention(window=12, heads=HEADS).offsets.reshape(23, 23, 2)
    assert table.abs().max().item() == pytest.approx(math.log2(9) / 3)
    assert torch.allclose(table, -table.flip(0, 1))
    assert table[0, 5, 0] < 0 < table[5, 22, 1]  # first entry of a pair is the row


def test_pair_index_is_the_offset_between_two_places():
    attention = FrozenWindowAttention(window=3, heads=HEADS)
    table = torch.arange(25).reshape(5, 5)
    first, second = 1 * 3 + 0, 2 * 3 + 2  # (row 1, column 0) and (row 2, column 2)
    assert attention.pairs[first, second] == table[1 - 2 + 2, 0 - 2 + 2]


@pytest.mark.parametrize("value_only", [True, False])
def test_a_token_reaches_its_own_window_only(value_only):
    attention = FrozenWindowAttention(window=2, heads=HEADS, value_only=value_only).eval()
    windows = torch.randn(1, 4, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    other = windows.clone()
    other[0, 2, 1] += 1
    before, after = (attention(w, *weights(), None) for w in (windows, other))
    changed = (before - after).abs().amax(dim=(0, 2, 3)) > 0
    assert changed.tolist() == [False, False, True, False]


def test_value_only_does_not_see_query_and_key_weights():
    attention = FrozenWindowAttention(window=2, heads=HEADS).eval()
    windows = torch.randn(1, 1, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    w_in, w_out, b_out = weights()
    changed = w_in.clone()
    changed[: 2 * WIDTH] = 7
    assert torch.equal(attention(windows, w_in, w_out, b_out, None), attention(windows, changed, w_out, b_out, None))


def test_scale_stops_at_one_hundred():
    attention = FrozenWindowAttention(window=2, heads=HEADS).eval()
    windows = torch.randn(1, 1, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    results = []
    for log_scale in (math.log(100.0), 50.0):
        attention.log_scale.data.fill_(log_scale)
        results.append(attention(windows, *weights(), None))
    assert torch.equal(*results)


def test_position_bias_stays_between_zero_and_sixteen():
    attention = FrozenWindowAttention(window=3, heads=HEADS)
    attention.position[2].weight.data.mul_(1000)
    bias = attention.position_bias()
    assert bias.shape == (HEADS, 9, 9)
    assert bias.min() >= 0 and bias.max() <= 16


def test_no_mask_where_nothing_is_shifted_or_padded():
    assert region_mask((4, 4), (4, 4), 2, 0) is None


def test_shift_keeps_opposite_sides_apart():
    mask = region_mask((4, 4), (4, 4), 2, 1)
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))  # the first window holds neighbours only
    assert (mask[3] == -100).sum() == 12  # the last one holds the four corners: each sees itself
    assert torch.equal(mask, mask.transpose(1, 2))


def test_padding_is_seen_by_nobody():
    mask = region_mask((3, 3), (4, 4), 2, 0)
    real = mask[3] > -1
    assert real.sum(dim=1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("window", [2, 3, 4])
def test_position_table_and_shift_mask_are_swins(window):
    swin = pytest.importorskip("timm.models.swin_transformer_v2")
    side, shift = 2 * window, window // 2
    block = swin.SwinTransformerV2Block(
        dim=WIDTH, input_resolution=(side, side), num_heads=HEADS, window_size=window, shift_size=shift
    )
    mine = FrozenWindowAttention(window=window, heads=HEADS)
    assert torch.equal(mine.pairs, block.attn.relative_position_index)
    torch.testing.assert_close(mine.offsets, block.attn.relative_coords_table.reshape(-1, 2))
    torch.testing.assert_close(region_mask((side, side), (side, side), window, shift), block.get_attn_mask())


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    from sowa.nn.attention import dropout_pattern

    torch.manual_seed(0)
    kept, factor = dropout_pattern((1001, 999), rate, torch.empty(0, dtype=torch.float64))
    pattern = kept * factor
    dropped = (pattern == 0).double()
    assert pattern.dtype == torch.float64 and dropped.mean() == pytest.approx(rate, abs=2e-3)
    if rate < 1:
        assert kept.max() == 1 and pattern.max() == pytest.approx(1 / (1 - rate), rel=1e-4)
        assert pattern.mean() == pytest.approx(1, abs=4e-3)
        # Neighbours, which may come of one number, know nothing of each other.
        for step in (1, 2, 3, 4):
            both = dropped[:, step:] * dropped[:, :-step]
            assert both.mean() == pytest.approx(rate**2, abs=2e-3)
    torch.manual_seed(0)
    assert torch.equal(dropout_pattern((1001, 999), rate, torch.empty(0, dtype=torch.float64))[0], kept)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("tokens_wanted", [False, True])
def test_the_gradient_by_hand_is_that_of_autograd(masked, dropout, tokens_wanted, monkeypatch):
    """Values, and gradients of scale, position bias and (a second block's) tokens, in float64."""
    torch.manual_seed(3)
    attention = FrozenWindowAttention(window=3, heads=2, dropout=dropout).double().train()
    tokens = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=tokens_wanted)
    frozen = [torch.randn(24, 8).double(), torch.randn(8, 8).double(), torch.randn(8).double()]
    mask = region_mask((6, 6), (6, 6), 3, 1).double() if masked else None
    towards = torch.randn(2, 4, 9, 8).double()
    leaves = [*attention.parameters(), *([tokens] if tokens_wanted else [])]

    def run():
        torch.manual_seed(11)
        out = attention(tokens, *frozen, mask)
        return out, torch.autograd.grad((out * towards).sum(), leaves)

    by_hand = run()
    monkeypatch.setattr(attention, "_mixed_in_training", lambda value, mask: plain_mix(attention, value, mask))
    by_autograd = run()
    torch.testing.assert_close(by_hand, by_autograd, rtol=1e-9, atol=1e-9)


def plain_mix(attention, value, mask):
    """The definition, left to autograd; draws the same numbers."""
    unit = torch.nn.functional.normalize(value, dim=-1)
    logits = unit @ unit.mT * attention.log_scale.exp() + attention.position_bias()
    weights = (logits if mask is None else logits + mask[:, None]).softmax(dim=-1)
    if attention.dropout:
        kept, factor = shared_dropout(weights.shape, attention.dropout, weights)
        weights = weights * kept * factor
    return weights @ value


def test_training_without_dropout_says_what_scoring_says():
    torch.manual_seed(3)
    attention = FrozenWindowAttention(window=3, heads=2)
    given = [torch.randn(2, 4, 9, 8), torch.randn(24, 8), torch.randn(8, 8), torch.randn(8), None]
    torch.testing.assert_close(attention.train()(*given), attention.eval()(*given))
