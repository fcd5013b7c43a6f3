import math

import torch
import torch.nn.functional as F

from pretrain import memory


def test_a_queue_is_unit_columns_first_in_first_out_and_wraps():
    torch.manual_seed(0)
    queue = memory.Queue(8, 6)
    torch.testing.assert_close(queue.queue.norm(dim=0), torch.ones(6))
    batches = [F.normalize(torch.randn(2, 8), dim=1) for _ in range(4)]
    for k in batches:
        queue.enqueue(k)
    assert torch.equal(queue.queue.T, torch.cat([batches[3], batches[1], batches[2]]))
    assert queue.pointer.tolist() == [2]
    assert set(queue.state_dict()) == {"queue", "pointer"}
    assert not list(queue.parameters())


def test_a_bank_begins_uniform_of_about_unit_length():
    torch.manual_seed(0)
    bank = memory.Bank(2000, 128).bank
    s = 1 / math.sqrt(128 / 3)
    assert bank.abs().max() <= s
    assert abs(bank.std().item() - s / math.sqrt(3)) < 1e-3
    assert abs(bank.square().sum(dim=1).mean().item() - 1) < 0.01


def test_a_banks_row_moves_by_the_weight_and_has_unit_length_afterwards():
    torch.manual_seed(0)
    bank = memory.Bank(5, 3)
    old, v = bank.bank.clone(), F.normalize(torch.randn(2, 3), dim=1)
    bank.update(torch.tensor([3, 1]), v, weight=0.25)
    for row, place in zip(v, (3, 1), strict=True):
        expected = 0.25 * old[place] + 0.75 * row
        torch.testing.assert_close(bank.bank[place], expected / expected.norm())
    assert torch.equal(bank.bank[[0, 2, 4]], old[[0, 2, 4]])


def test_the_draw_puts_the_image_first_and_is_uniform_after_it():
    torch.manual_seed(0)
    drawn = memory.Bank(10, 2).drawn(torch.tensor([7, 2]), 20_000)
    assert drawn.shape == (2, 20_001)
    assert drawn[:, 0].tolist() == [7, 2]
    shares = torch.bincount(drawn[:, 1:].flatten(), minlength=10) / 40_000
    assert (shares - 0.1).abs().max() < 0.006  # four standard deviations


def test_the_draw_is_made_where_the_bank_is():
    bank, before = memory.Bank(10, 2).to("meta"), torch.get_rng_state()
    drawn = bank.drawn(torch.arange(3, device="meta"), 7)
    assert drawn.shape == (3, 8) and drawn.is_meta
    assert torch.equal(torch.get_rng_state(), before)
