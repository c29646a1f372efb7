"""What of MoBy's recipe follows from the length of a training: queue from images, momentum from steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sept import compose
from sept.methods.moby.recipe import MOST_QUEUE, MoByRecipe

OPEN = MoByRecipe(batch_size=64, queue=None, momentum=None)


@pytest.mark.parametrize(
    ("images", "epochs", "queue", "momentum"),
    [(1000, 40, 448, 0.9), (1_000, 400, 448, 0.99), (100, 1, 64, 0.8), (1_000_000, 300, MOST_QUEUE, 0.996)],
)
def test_they_follow_images_and_steps(images, epochs, queue, momentum):
    made = OPEN.fitted(images, epochs * (images // 64))
    assert made.queue == queue
    assert made.momentum == pytest.approx(momentum, abs=2e-3)


def test_published_values_stay():
    published = compose.experiment(["pretrain=moby_swin_t"]).pretrain
    assert published.fitted(1000, 1) == published


@given(st.integers(64, 10**7), st.integers(1, 1000))
def test_a_queue_holds_whole_batches_and_no_image_of_the_batch_twice(images, epochs):
    queue = OPEN.fitted(images, epochs * (images // 64)).queue
    assert queue is not None
    assert queue % 64 == 0
    assert 64 <= queue <= max(64, images // 2)


def test_the_cost_of_an_open_recipe_is_that_of_the_fitted_one():
    e = compose.experiment(["pretrain=moby_small", "pretrain.side=32", "pretrain.store_side=32"])
    from sept.pipeline import Pipeline
    from sept.runtime.hardware import resolve

    step = Pipeline(e, resolve(e.hardware)).pretrain
    steps = 40 * (2000 // 64)
    assert step.estimate["flops"] == pytest.approx(e.pretrain.fitted(2000, steps).flops(e.backbone) * steps * 64)
