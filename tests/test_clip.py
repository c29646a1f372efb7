"""CLIP: its first loss, its loss and steps against a slow restatement, its text tower and its tokens."""

import copy
import math

import annotated
import pytest
import torch
from micro import SWIN, VIT, cropped, recorded, run

from sept import capability
from sept.compose import experiment
from sept.data.rng import generator
from sept.errors import ConfigError
from sept.methods.clip.learner import Clip, symmetric
from sept.methods.clip.text import TextTower, tokens_of
from sept.methods.recipe import Length
from sept.training.learner import Chunk, kept_bytes


def trained(folder, backbone=SWIN, images=32, steps=4, **changes):
    learner = recorded(Clip)(annotated.clip(**changes), backbone, seed=0, length=Length(steps, 2))
    return run(learner, cropped(learner, annotated.subset(folder / "images", images, "captions"), 16), folder)


def slow_loss(images, captions, scale):
    """One pair after the other."""
    unit = [[row / row.norm() for row in rows] for rows in (images, captions)]
    loss = 0.0
    for queries, others in (unit, unit[::-1]):
        for own, query in enumerate(queries):
            scores = torch.stack([scale * (query @ other) for other in others])
            loss = loss + (torch.logsumexp(scores, 0) - scores[own]) / (2 * len(queries))
    return loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_the_loss_is_that_of_a_loop():
    images, captions, scale = random(6, 5), random(6, 5, seed=1), torch.tensor(14.3, dtype=torch.float64)
    assert symmetric(images, captions, scale).item() == pytest.approx(slow_loss(images, captions, scale).item())


def test_the_loss_is_that_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    images, captions = (torch.nn.functional.normalize(random(8, 5, seed=seed), dim=1) for seed in (0, 1))
    found = open_clip.ClipLoss()(images, captions, torch.tensor(20.0))
    assert symmetric(images, captions, torch.tensor(20.0)).item() == pytest.approx(found.item())


def test_the_first_loss_is_that_of_chance(tmp_path):
    learner = trained(tmp_path, backbone=VIT, steps=1, out_dim=512)  # in a space as wide as CLIP's
    assert learner.losses[0] == pytest.approx(math.log(16), rel=0.02)
    assert learner.batches[0]["caption"][0].startswith(("This is a photo of class", "no. "))


def test_captions_are_read_in_chunks_as_images_are(tmp_path):
    learner, read = recorded(Clip)(annotated.clip(), SWIN, seed=0, length=Length(1, 1)), []
    learner.text.register_forward_hook(lambda tower, inputs, output: read.append(len(output)))
    learner.chunk = Chunk(4, 4)
    run(learner, cropped(learner, annotated.subset(tmp_path / "images", 16, "captions"), 16), tmp_path)
    assert max(read) == 4
    assert sum(read) == 16


def test_a_blank_batch_takes_the_memory_of_both_towers():
    learner = Clip(annotated.clip(), SWIN, seed=0, length=Length(1, 1))
    whole, images = kept_bytes(learner.encode_blank), kept_bytes(super(Clip, learner).encode_blank)
    longer = Clip(annotated.clip(context=80), SWIN, seed=0, length=Length(1, 1))
    assert whole > images
    assert kept_bytes(longer.encode_blank) - images > 1.9 * (whole - images)


def test_a_step_is_the_loss_and_the_optimiser_worked_out_one_by_one(tmp_path):
    learner = trained(tmp_path, lr=1e-2, weight_decay=0.1, betas=[0.9, 0.98], clip=None)
    first, second = {}, {}
    for step in range(2):
        net = copy.deepcopy(learner).double()
        net.load_state_dict(learner.before[step])
        net.train()
        batch = learner.batches[step]
        images = net.backbone(learner.views(batch, step).double()) @ net.image_projection.weight.T
        words = []
        for caption in batch["caption"]:  # each by itself, so without padding
            tokens = torch.tensor([[256, *caption.lower().encode(), 257]])
            words.append(net.text(tokens, torch.tensor([tokens.shape[1] - 1]))[0])
        captions = torch.stack(words) @ net.text_projection.weight.T
        loss = slow_loss(images, captions, net.log_scale.exp())
        assert learner.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        after = [*learner.before, learner.state_dict()][step + 1]
        rate = learner.rates[step][0]
        for name, p in net.named_parameters():
            first[name] = 0.9 * first.get(name, 0.0) + 0.1 * p.grad
            second[name] = 0.98 * second.get(name, 0.0) + 0.02 * p.grad**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.98 ** (step + 1))
            kept = p.detach() * (1 - rate * (0.0 if p.ndim < 2 else 0.1))
            expected = kept - rate * mean / (square.sqrt() + 1e-8)
            if name == "log_scale":
                expected = expected.clamp(max=math.log(100))
            noisy = p.grad.abs() < 1e-7  # of rounding, whose sign AdamW follows
            found = torch.where(noisy, expected, after[name].double())
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_the_scale_is_bounded_after_every_step_and_not_decayed(tmp_path):
    learner = trained(tmp_path, lr=0.5, warmup_lr=0.5, temperature=0.0102, weight_decay=0.5)
    scales = [state["log_scale"].item() for state in [*learner.before, learner.state_dict()]]
    assert max(scales) <= math.log(100) + 1e-6
    plain = learner.trainer.optimizers[0].param_groups[1]
    assert any(p is learner.log_scale for p in plain["params"])
    assert plain["weight_decay"] == 0
    assert any(p is learner.text.places for p in learner.trainer.optimizers[0].param_groups[0]["params"])


def test_captions_are_learnt(tmp_path):
    learner = trained(tmp_path, images=16, steps=60, lr=3e-3, crop_scale=[0.8, 1.0])
    assert sum(learner.losses[-5:]) / 5 < 0.7 * math.log(16)  # some captions are of several images
    assert learner.health()["effective_rank"] > 1.5


def test_only_the_image_tower_is_handed_on():
    learner = Clip(annotated.clip(), SWIN, seed=0, length=Length(1, 1))
    assert learner.encoder is learner.backbone
    assert not any(part is learner.text for part in learner.encoder.modules())


# The text tower


def test_a_caption_has_one_feature_whatever_stands_behind_it_or_beside_it():
    recipe = annotated.clip()
    tokens, tower = tokens_of("bytes"), TextTower(recipe, 258).double()
    captions = ["a", "a longer one, with more", "something in between"]
    together = tower(*tokens.batch(captions, recipe.context))
    for caption, feature in zip(captions, together, strict=True):
        torch.testing.assert_close(tower(*tokens.batch([caption], recipe.context))[0], feature)
    padded, ends = tokens.batch(captions, recipe.context)
    other = padded.masked_fill(padded == 0, 7)
    torch.testing.assert_close(tower(other, ends), together)


def test_the_tower_is_open_clips():
    """The same weights give the same features."""
    open_clip = pytest.importorskip("open_clip")
    recipe = annotated.clip(tokens="bpe", context=16)
    tower, tokens = TextTower(recipe, 49408), tokens_of("bpe")
    with torch.device("cpu"):
        other = open_clip.transformer.TextTransformer(
            context_length=16, vocab_size=49408, width=32, heads=2, layers=2, output_dim=32
        ).eval()
    names = {
        "tokens.weight": "token_embedding.weight",
        "places": "positional_embedding",
        "norm.weight": "ln_final.weight",
        "norm.bias": "ln_final.bias",
    }
    parts = {"norm1": "ln_1", "norm2": "ln_2", "proj": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
    held = other.state_dict()
    state = {}
    for name in tower.state_dict():
        if name.startswith("blocks."):
            _, number, part, kind = name.split(".")
            inside = f"attn.in_proj_{kind}" if part == "qkv" else f"{parts[part]}.{kind}"
            state[name] = held[f"transformer.resblocks.{number}.{inside}"]
        else:
            state[name] = held[names[name]]
    tower.load_state_dict(state)
    captions = ["a photo of a cat", "two dogs, and no cat", "no."]
    padded, ends = tokens.batch(captions, 16)
    with torch.no_grad():
        expected = other(open_clip.SimpleTokenizer(context_length=16)(captions)) @ other.text_projection.inverse()
        torch.testing.assert_close(tower(padded, ends), expected, rtol=1e-3, atol=1e-3)


def test_initial_weights_are_spread_as_in_clips_code():
    tower = TextTower(annotated.clip(text_width=256, text_layers=3, text_heads=4, context=77), 5000)
    block, width = tower.blocks[0], 256
    assert tower.tokens.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert tower.places.std().item() == pytest.approx(0.01, rel=0.05)
    assert block.qkv.weight.std().item() == pytest.approx(width**-0.5, rel=0.02)
    assert block.proj.weight.std().item() == pytest.approx((width * 6) ** -0.5, rel=0.03)
    assert block.fc1.weight.std().item() == pytest.approx((2 * width) ** -0.5, rel=0.02)
    assert block.fc2.weight.std().item() == pytest.approx((width * 6) ** -0.5, rel=0.02)


# Tokens


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_batches_are_as_long_as_their_longest_caption_and_never_longer_than_the_context(name):
    tokens = tokens_of(name)
    padded, ends = tokens.batch(["ab", "abcdefg xyz " * 9], 12)
    assert padded.shape == (2, 12)
    assert padded[:, 0].tolist() == [tokens.start] * 2
    assert [padded[i, end].item() for i, end in enumerate(ends)] == [tokens.end] * 2
    assert ends[1] == 11
    assert tokens.batch(["ab"], 12)[0].shape[1] == ends[0] + 1
    assert int(padded.max()) < tokens.size


def test_byte_pairs_are_open_clips():
    open_clip = pytest.importorskip("open_clip")
    captions = ["A photo of a cat.", "Übergrößenträger &amp; more", "one " * 100]
    padded, _ = tokens_of("bpe").batch(captions, 77)
    assert torch.equal(padded, open_clip.SimpleTokenizer()(captions))


def test_a_missing_tokenizer_is_told_before_a_run_and_bytes_need_none(monkeypatch):
    monkeypatch.setattr(capability, "find_spec", lambda name: None if name == "open_clip" else name)
    asked = ["pretrain=clip_vit_b16", "backbone=vit_b16", "budget.images=5000", "pool.captions=from_labels"]
    with pytest.raises(ConfigError, match=r"pretrain=clip_vit_b16 needs open_clip, which is not .*sept\[text\]"):
        capability.require_packages(experiment(asked))
    capability.require_packages(experiment([*asked, "pretrain.tokens=bytes"]))
    capability.require_packages(experiment([*asked, "init=rand_init"]))
    capability.require_packages(experiment(asked), selection_only=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_heads": 3}, r"pretrain\.text_width=32 does not split over pretrain\.text_heads=3"),
        ({"temperature": 0.005}, r"pretrain\.temperature=0\.005 is below pretrain\.least_temperature=0\.01"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        annotated.clip(**changes).check("pretrain")
