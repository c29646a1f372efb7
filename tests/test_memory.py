"""The count of bytes alive in a training step: against hand-made sums, real tensors, and itself at other batches."""

from dataclasses import replace
from functools import cache

import micro
import pytest
import torch
import torch.nn.functional as F
from conftest import mostly_slow
from test_full_size import experiment
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from sept.gpu.live import Live, cuda_operators
from sept.gpu.memory import GIB, VIT, StepMemory, build_learner, chunk_within, heading, recipe, row, step_memory
from sept.training.learner import Chunk
from sept.transfer.recipes import Detect, Segment

SIDES = (64, 96)
LIMITS = (1_900_000, 2_800_000)  # bytes, for twelve images
SWIN = replace(micro.SWIN, args={**micro.SWIN.args, "depths": [1, 1]})
VIT_OF_A_BLOCK = replace(micro.VIT, args={**micro.VIT.args, "depth": 1})
SHORT = {"epochs": 20, "batch_size": 2, "drop_path_rate": 0.1}
MICRO = {
    "moby": {"given": micro.moby(drop_path_rate=0.1), "model": SWIN},
    "ibot": {"given": micro.ibot(), "model": VIT_OF_A_BLOCK},
    "classify": {"given": micro.finetune(), "model": SWIN, "classes": 5},
    "segment": {"given": Segment(side=micro.SIDE, decoder_width=16, **SHORT), "model": SWIN, "classes": 5},
    "detect": {
        "given": Detect(
            **SHORT, milestones=[1, 2], fpn_width=8, head_width=16, proposals=[40, 30], roi_samples=16, rpn_samples=16
        ),
        "model": SWIN,
        "classes": 5,
        "sides": SIDES,
    },
}

OTHERS = ("ibot", "classify", "segment", "detect")


@cache
def counted(kind: str, batch: int) -> StepMemory:
    return step_memory(kind, batch, **MICRO[kind])


def test_a_linear_layer_by_hand():
    batch, inside, outside = 32, 10, 6
    with FakeTensorMode(), Live() as live:
        layer, x = nn.Linear(inside, outside), torch.empty(batch, inside)
        held = 4 * (inside * outside + outside + batch * inside)
        assert live.bytes == held
        live.restart()
        loss = layer(x).sum()
        assert live.bytes == held + 4  # nothing of the output is needed for backward
        assert live.restart() == (held + 4 * batch * outside + 4, 2)
        loss.backward()
        assert live.bytes == held + 4 + 4 * (inside * outside + outside)


def test_views_and_changes_in_place_take_nothing_and_what_is_dropped_is_given_back():
    with FakeTensorMode(), Live() as live:
        x = torch.zeros(4, 8)
        x.add_(1)
        view = x.reshape(2, 16).T[3:]
        assert live.restart() == (4 * 32, 2)
        half = x.bfloat16()
        assert live.bytes == 4 * 32 + 2 * 32
        del half, x
        assert live.bytes == 4 * 32  # the view holds it
        del view
        assert live.bytes == 0
        assert live.restart() == (4 * 32 + 2 * 32, 1)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.attention = nn.Linear(8, 24)
        self.last = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 5))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(2).mT
        q, k, v = self.attention(x).chunk(3, dim=-1)
        return self.last((q @ k.mT).softmax(-1) @ v + x).mean(dim=1)


def counted_step():
    """Every count of a training step, operator by operator; on whatever tensors the modes around it make."""

    class Recorded(Live):
        history: list

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = super().__torch_dispatch__(func, types, args, kwargs)
            if not func.is_view and func.namespace == "aten":
                self.history.append((func._schema.name, self.bytes, self.peak))
            return result

    live = Recorded()
    live.history = []
    with live:
        net = Network()
        optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(net(torch.ones(6, 3, 12, 12)), torch.ones(6, dtype=torch.long)).backward()
            optimizer.step()
    return live.history


def test_tensors_without_data_count_as_real_ones_do_after_every_operator():
    real = counted_step()
    with FakeTensorMode():
        fake = counted_step()
    values = ("aten::_local_scalar_dense", "aten::lift_fresh")
    real, fake = ([line for line in each if line[0] not in values] for each in (real, fake))
    assert len(real) > 150
    assert fake == real


def test_autocast_does_in_float32_what_cuda_does():
    with FakeTensorMode(), cuda_operators(), torch.autocast("cpu", torch.bfloat16):
        x = torch.empty(4, 8) @ torch.empty(8, 8)
        assert x.dtype == torch.bfloat16
        assert F.gelu(x).dtype == torch.bfloat16
        for found in (F.layer_norm(x, (8,)), x.softmax(dim=-1), F.softmax(x, dim=-1), x.sum(), x**2, F.normalize(x)):
            assert found.dtype == torch.float32


def test_attention_keeps_its_arguments_output_and_row_sums_but_no_scores():
    batch, heads, length, width = 2, 3, 40, 8
    with FakeTensorMode(), Live() as live, cuda_operators(), torch.autocast("cpu", torch.bfloat16):
        q, k, v = (torch.empty(batch, heads, length, width, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
        before = live.bytes
        out = F.scaled_dot_product_attention(q, k, v)
        own = 2 * batch * heads * length * width
        sums = 4 * batch * heads * 64  # rows come by 32
        assert own + sums <= live.bytes - before <= own + sums + 16  # and the state of the generator
        out.float().sum().backward()
        assert q.grad.shape == q.shape


def test_how_much_nonzero_finds_has_to_be_told():
    with FakeTensorMode(), Live() as live:
        mask = torch.empty(7, 5) > 0
        with live.finding(3):
            assert [len(found) for found in torch.where(mask)] == [3, 3]
        with pytest.raises(DynamicOutputShapeException):
            torch.where(mask)
        with pytest.raises(AssertionError, match="1 calls"), live.finding(3):
            pass


@pytest.mark.parametrize("kind", ["moby", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_what_a_step_holds_grows_evenly_with_the_batch(kind):
    steps = [counted(kind, batch) for batch in (4, 8, 12)]
    assert len({(step.weights, step.trained) for step in steps}) == 1
    assert len({step.operators for step in steps}) == 1 or kind in ("detect", "classify")  # which go image by image
    for name in ("after_encoder", "after_forward"):
        first, second, third = (getattr(step, name) for step in steps)
        assert first < second
        assert third - second == pytest.approx(second - first, rel=0.01)
    assert steps[0].peak < steps[1].peak < steps[2].peak


@pytest.mark.parametrize("kind", mostly_slow(OTHERS))
def test_the_other_learners_steps_are_counted_to_their_end(kind):
    step = counted(kind, 2)
    assert step.weights < step.trained < step.after_encoder
    assert step.peak == max(step.peak_forward, step.peak_backward) >= step.after_forward
    assert min(step.forward_operators, step.backward_operators, step.optimiser_operators) > 1


def test_the_largest_detection_step_has_as_many_boxes_as_the_recipe_allows():
    more = {"given": replace(MICRO["detect"]["given"], roi_samples=32)}
    few, many = counted("detect", 2), step_memory("detect", 2, **MICRO["detect"] | more)
    cells = 7 * 7 * MICRO["detect"]["given"].fpn_width  # of a box, float32: its features are kept for the first layer
    assert many.after_forward - few.after_forward > 2 * (32 - 16) * cells * 2


def test_what_is_encoded_in_chunks_holds_less_at_once():
    whole, part = counted("moby", 12), step_memory("moby", 12, chunk=Chunk(3), **MICRO["moby"])
    assert part.peak < 0.6 * whole.peak
    assert part.after_encoder < 0.6 * whole.after_encoder
    assert part.operators > whole.operators
    assert (part.weights, part.trained) == (whole.weights, whole.trained)


def test_the_chunk_for_a_limit_keeps_as_many_images_as_it_can():
    whole = counted("moby", 12)
    tight, wide, all_ = (chunk_within(limit, "moby", 12, **MICRO["moby"]) for limit in (*LIMITS, 2 * whole.peak))
    assert 0 < tight.kept < wide.kept < 12
    assert all_ is None


def test_a_learners_weights_and_the_state_of_adamw_are_counted_to_the_byte():
    step = counted("moby", 4)
    learner = build_learner("moby", MICRO["moby"]["given"], SWIN)
    held = {id(tensor): tensor for tensor in (*learner.parameters(), *learner.buffers())}
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    assert step.weights == sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    assert step.trained == sum(3 * 4 * parameter.numel() + 4 for parameter in trained)  # and a count of steps each


def test_full_size_recipes_are_those_of_the_yaml(monkeypatch):
    monkeypatch.delenv("SEPT_WEIGHTS", raising=False)
    whole = experiment("pretrain=moby_swin_t", "retriever=ibot_vit_s16", "finetune=classify")
    assert recipe("moby") == whole.pretrain
    assert (recipe("ibot"), VIT) == (whole.retriever.train, whole.retriever.backbone)
    assert recipe("classify") == whole.finetune
    for kind in ("detect", "segment"):
        task = {"detect": "voc", "segment": "ade20k"}[kind]
        assert recipe(kind) == experiment(f"finetune={kind}", f"task={task}", "task.path=.").finetune


def test_a_row_says_whether_the_peak_keeps_the_limit():
    step = counted("classify", 2)
    assert len(heading().splitlines()[0].split("|")) == len(row("x", step, 1).split("|"))
    assert "| 1 | yes |" in row("x", step, 1)
    assert "| no |" in row("x", step, (step.peak - 1) / GIB)
