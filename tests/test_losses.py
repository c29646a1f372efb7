"""Losses against float64 loops written from the formulas: equal to 1e-6 in float32, to 1e-10 in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from sept.data.rng import generator
from sept.methods.ibot.loss import patch_loss
from sept.methods.moby.learner import info_nce
from sept.methods.selfdistillation import cls_loss, sharpen


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, *shape))


PRECISION = pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])


def unit(*shape, seed=0):
    return F.normalize(randn(*shape, seed=seed), dim=1)


def slow_info_nce(query, key, queue, temperature):
    total = 0.0
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        logits = [sum(a * b for a, b in zip(q, k, strict=True)) / temperature]
        for column in queue.T.tolist():
            logits.append(sum(a * b for a, b in zip(q, column, strict=True)) / temperature)
        total += math.log(sum(math.exp(z) for z in logits)) - logits[0]
    return total / len(query)


@PRECISION
@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_moby_info_nce_equals_a_slow_loop(temperature, dtype, within):
    query, key, queue = unit(5, 8).to(dtype), unit(5, 8, seed=1).to(dtype), unit(8, 12).to(dtype)
    expected = slow_info_nce(query.double(), key.double(), queue.double(), temperature)
    loss = info_nce(query, key, queue, temperature)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=within)


def test_moby_info_nce_sends_gradient_to_queries_alone():
    query, key, queue = (t.requires_grad_() for t in (unit(4, 8), unit(4, 8, seed=1), unit(8, 6)))
    info_nce(query, key, queue, 0.2).backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert queue.grad is None


def test_moby_info_nce_of_random_features_is_at_chance():
    size = 4096
    keys = [unit(64, 256, seed=s) for s in range(4)]
    queues = [F.normalize(randn(256, size, seed=s), dim=0) for s in range(2)]
    both = info_nce(keys[0], keys[1], queues[0], 0.2) + info_nce(keys[2], keys[3], queues[1], 0.2)
    assert 2 * math.log(size + 1) == pytest.approx(16.6, abs=0.05)
    assert both.item() == pytest.approx(2 * math.log(size + 1), rel=0.02)


def test_moby_info_nce_falls_as_query_and_key_agree():
    query, queue = unit(8, 16), F.normalize(randn(16, 32), dim=0)
    assert info_nce(query, query, queue, 0.2) < info_nce(query, unit(8, 16, seed=3), queue, 0.2)


def slow_cross_entropy(target, logits, temperature):
    """-sum_c target[c] * log softmax(logits / temperature)[c] of two lists."""
    top = max(logits) / temperature
    norm = top + math.log(sum(math.exp(z / temperature - top) for z in logits))
    return -sum(p * (z / temperature - norm) for p, z in zip(target, logits, strict=True))


@PRECISION
@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_ibot_sharpen_is_the_centred_softmax_without_gradient(temperature, dtype, within):
    teacher, center = randn(3, 5).to(dtype).requires_grad_(), randn(1, 5, seed=1).to(dtype)
    target = sharpen(teacher, center, temperature)
    assert not target.requires_grad
    assert target.dtype == dtype
    for row, given in zip(target.tolist(), (teacher.double() - center.double()).tolist(), strict=True):
        weights = [math.exp((z - max(given)) / temperature) for z in given]
        assert row == pytest.approx([w / sum(weights) for w in weights], abs=within)


@PRECISION
@pytest.mark.parametrize("local_crops", [0, 3])
def test_ibot_cls_loss_equals_a_slow_loop(local_crops, dtype, within):
    batch, prototypes = 4, 7
    student = [randn(batch, prototypes, seed=v).to(dtype) for v in range(2 + local_crops)]
    teacher = [randn(batch, prototypes, seed=10 + q).to(dtype).softmax(dim=1) for q in range(2)]
    terms = []
    for q in range(2):
        for v in range(2 + local_crops):
            if v != q:
                pairs = zip(teacher[q].double().tolist(), student[v].double().tolist(), strict=True)
                terms.append(sum(slow_cross_entropy(p, z, 0.1) for p, z in pairs) / batch)
    assert len(terms) == 2 * (1 + local_crops)
    assert cls_loss(student, teacher, 0.1).dtype == dtype
    assert cls_loss(student, teacher, 0.1).item() == pytest.approx(sum(terms) / len(terms), rel=within)


def patches(batch=3, length=6, prototypes=5, dtype=torch.float32):
    student = [randn(batch, length, prototypes, seed=v).to(dtype) for v in range(2)]
    teacher = [randn(batch, length, prototypes, seed=10 + v).to(dtype).softmax(dim=-1) for v in range(2)]
    return student, teacher


def slow_patch_loss(student, teacher, masks, temperature):
    views = []
    for z, p, mask in zip(student, teacher, masks, strict=True):
        rows = []
        for i in range(len(z)):
            masked = [j for j in range(mask.shape[1]) if mask[i, j]]
            entropies = [slow_cross_entropy(p[i, j].tolist(), z[i, j].tolist(), temperature) for j in masked]
            rows.append(sum(entropies) / max(len(masked), 1))
        views.append(sum(rows) / len(rows))
    return sum(views) / len(views)


@PRECISION
def test_ibot_patch_loss_equals_a_slow_loop_in_which_unmasked_images_count_as_zero(dtype, within):
    student, teacher = patches(dtype=dtype)
    masks = [randn(3, 6, seed=20 + v) > 0 for v in range(2)]
    masks[0][1] = False
    masks[1][2] = True
    doubles = [[t.double() for t in side] for side in (student, teacher)]
    expected = slow_patch_loss(*doubles, masks, 0.1)
    assert patch_loss(student, teacher, masks, 0.1).dtype == dtype
    assert patch_loss(student, teacher, masks, 0.1).item() == pytest.approx(expected, rel=within)


def test_ibot_patch_loss_without_any_mask_is_zero_and_so_is_its_gradient():
    student, teacher = patches()
    student = [s.requires_grad_() for s in student]
    loss = patch_loss(student, teacher, [torch.zeros(3, 6, dtype=torch.bool)] * 2, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert all(s.grad.abs().max() == 0 for s in student)


def test_ibot_patch_loss_sees_masked_patches_alone():
    student, teacher = patches()
    masks = [torch.zeros(3, 6, dtype=torch.bool) for _ in range(2)]
    masks[0][0, 2] = masks[1][1, 4] = True
    before = patch_loss(student, teacher, masks, 0.1)
    student[0][0, 3] += 5
    student[1][0, 4] += randn(5)
    assert torch.equal(patch_loss(student, teacher, masks, 0.1), before)


def test_ibot_losses_are_at_chance_when_the_student_is_indifferent():
    prototypes = 9
    targets = [randn(4, prototypes, seed=q).softmax(dim=1) for q in range(2)]
    flat = [torch.zeros(4, prototypes)] * 4
    assert cls_loss(flat, targets, 0.1).item() == pytest.approx(math.log(prototypes), rel=1e-6)


def test_losses_of_half_precision_are_summed_in_float32():
    logits, targets = [randn(4, 7, seed=v).bfloat16() for v in range(2)], [randn(4, 7).softmax(dim=1)] * 2
    assert cls_loss(logits, targets, 0.1).dtype == sharpen(logits[0], randn(1, 7), 0.04).dtype == torch.float32
    assert (
        patch_loss([z[:, None] for z in logits], [p[:, None] for p in targets], [torch.ones(4, 1) > 0] * 2, 0.1).dtype
        == torch.float32
    )
    assert info_nce(logits[0], logits[1], randn(7, 6).bfloat16(), 0.2).dtype == torch.float32
