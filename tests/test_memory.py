"""The count of bytes alive in a training step: against hand-made sums, real tensors, and itself at other batches."""

import micro
import pytest
import torch
import torch.nn.functional as F
from test_full_size import experiment
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from sept.config import Detect, Segment
from sept.gpu.live import CudaOperators, Live
from sept.gpu.memory import GIB, VIT, build_learner, heading, recipe, row, step_memory

SIDES = (64, 96)
SHORT = {"epochs": 20, "batch_size": 2, "drop_path_rate": 0.1}
MICRO = {
    "moby": {"given": micro.moby()},
    "ibot": {"given": micro.ibot(), "model": micro.VIT},
    "classify": {"given": micro.finetune(), "model": micro.SWIN, "classes": 5},
    "segment": {"given": Segment(side=micro.SIDE, decoder_width=16, **SHORT), "model": micro.SWIN, "classes": 5},
    "detect": {
        "given": Detect(
            **SHORT, milestones=[1, 2], fpn_width=8, head_width=16, proposals=[40, 30], roi_samples=16, rpn_samples=16
        ),
        "model": micro.SWIN,
        "classes": 5,
        "sides": SIDES,
    },
}


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
    assert len(real) > 200
    assert fake == real


def test_autocast_does_in_float32_what_cuda_does():
    with FakeTensorMode(), CudaOperators(), torch.autocast("cpu", torch.bfloat16):
        x = torch.empty(4, 8) @ torch.empty(8, 8)
        assert x.dtype == torch.bfloat16
        assert F.gelu(x).dtype == torch.bfloat16
        for found in (F.layer_norm(x, (8,)), x.softmax(dim=-1), F.softmax(x, dim=-1), x.sum(), x**2, F.normalize(x)):
            assert found.dtype == torch.float32


def test_attention_keeps_its_arguments_output_and_row_sums_but_no_scores():
    batch, heads, length, width = 2, 3, 40, 8
    with FakeTensorMode(), Live() as live, CudaOperators(), torch.autocast("cpu", torch.bfloat16):
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


@pytest.mark.parametrize("kind", MICRO)
def test_what_a_step_holds_grows_evenly_with_the_batch(kind):
    steps = [step_memory(kind, batch, **MICRO[kind]) for batch in (4, 8, 12)]
    assert len({(step.weights, step.trained) for step in steps}) == 1
    assert len({step.operators for step in steps}) == 1 or kind == "detect"  # which does much image by image
    for name in ("after_encoder", "after_forward"):
        first, second, third = (getattr(step, name) for step in steps)
        assert first < second
        assert third - second == pytest.approx(second - first, rel=0.01)
    assert steps[0].peak < steps[1].peak < steps[2].peak


def test_a_learners_weights_and_the_state_of_adamw_are_counted_to_the_byte():
    step = step_memory("moby", 4, **MICRO["moby"])
    learner = build_learner("moby", micro.moby())
    held = {id(tensor): tensor for tensor in (*learner.parameters(), *learner.buffers())}
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    assert step.weights == sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    assert step.trained == sum(3 * 4 * parameter.numel() + 4 for parameter in trained)  # and a count of steps each


def test_full_size_recipes_are_those_of_the_yaml(monkeypatch):
    monkeypatch.delenv("SEPT_WEIGHTS", raising=False)
    whole = experiment("pretrain=moby_swin_t", "retriever=ibot_vit_s16", "finetune=classify")
    assert recipe("moby") == whole.pretrain
    assert (recipe("ibot"), VIT) == (whole.retriever.train, whole.retriever.model)
    assert recipe("classify") == whole.finetune
    for kind in ("detect", "segment"):
        task = {"detect": "voc", "segment": "ade20k"}[kind]
        assert recipe(kind) == experiment(f"finetune={kind}", f"task={task}", "task.path=.").finetune


def test_a_row_says_whether_the_peak_keeps_the_limit():
    step = step_memory("classify", 2, **MICRO["classify"])
    assert len(heading().splitlines()[0].split("|")) == len(row("x", step, 1).split("|"))
    assert "| 1 | yes |" in row("x", step, 1)
    assert "| no |" in row("x", step, (step.peak - 1) / GIB)
