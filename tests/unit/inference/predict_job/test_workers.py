import os

import pytest
import torch

from fasterrcnn.errors import FasterRCNNError
from fasterrcnn.inference.predict_job.workers import map_in_processes


def work(item):
    if item == "die":
        os._exit(9)
    if item == "fail":
        raise ValueError("cannot do it")
    return item, os.getpid(), torch.get_num_threads()


def test_map_in_processes__order_processes_and_threads():
    results = list(map_in_processes(work, range(8), workers=2, threads=1))
    assert [item for item, _, _ in results] == list(range(8))
    assert os.getpid() not in {pid for _, pid, _ in results}
    assert {threads for _, _, threads in results} == {1}


@pytest.mark.slow
def test_map_in_processes__takes_few_items_ahead():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_processes(work, items(), workers=1, threads=1)
    next(results)
    results.close()
    assert len(taken) <= 5


@pytest.mark.slow
def test_map_in_processes__errors():
    with pytest.raises(ValueError, match="cannot do it"):
        list(map_in_processes(work, ["fail"], workers=1, threads=1))
    with pytest.raises(FasterRCNNError, match="a worker process died"):
        list(map_in_processes(work, ["die"], workers=1, threads=1))
