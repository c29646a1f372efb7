"""What CONTRIBUTING.md shows works as it stands there."""

import re

import official
import yaml
from conftest import ROOT

from sept.data.tasks.task import Task

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_worked_example_of_a_task_reads_what_it_says(tmp_path):
    [code] = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "labels.txt" in block]
    module: dict = {"__name__": "leaves"}
    exec(code, module)
    for label, name in enumerate(("0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg")):
        official.put(tmp_path / "leaves" / "images" / name, label % 2, label)
    official.write_text(
        tmp_path / "leaves" / "labels.txt",
        "oak 0001.jpg train\nbeech 0002.jpg train\noak 0003.jpg test\nbeech 0004.jpg test\n",
    )
    task = module["read"](tmp_path)
    assert isinstance(task, Task)
    assert task.classes == ["beech", "oak"]
    assert [(example.id, example.label) for example in task.train + task.test] == [
        *(("images/0002.jpg", 0), ("images/0001.jpg", 1), ("images/0004.jpg", 0), ("images/0003.jpg", 1))
    ]


def test_the_worked_example_of_a_pool_has_the_keys_of_its_group():
    [block] = [block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "feeder" in block]
    assert yaml.safe_load(block).keys() == yaml.safe_load((ROOT / "conf" / "pool" / "sept155m.yaml").read_text()).keys()
