"""A lock-step runner of the PyMARL kind, written plainly, to compare throughput with.

One process and one pipe an environment; every message is pickled; a step waits for the slowest environment; an
environment whose episode is over waits until all are (https://github.com/oxwhirl/pymarl, parallel_runner.py, does so).
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def _work(pipe: Any, build: Callable[[int], Any], index: int) -> None:
    env = build(index)
    while True:
        command, data = pipe.recv()
        if command == "close":
            env.close()
            return
        reply = {}
        if command == "reset":
            env.reset()
        else:
            reply["reward"], reply["terminated"], reply["info"] = env.step(data)
        reply |= {"state": env.get_state(), "obs": env.get_obs(), "avail_actions": env.get_avail_actions()}
        pipe.send(reply)


class LockStepRunner:
    """``build(index)`` makes environment ``index``, with the interface of smac, in a process of its own."""

    def __init__(self, num_envs: int, build: Callable[[int], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipes: list[Any] = []
        self.workers: list[Any] = []
        for index in range(num_envs):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, build, index), daemon=True)
            worker.start()
            self.pipes.append(ours)
            self.workers.append(worker)

    def run(self, choose: Callable[[Array], Array]) -> int:
        """An episode of every environment; returns the steps taken in all of them together."""
        running = list(range(len(self.pipes)))
        for pipe in self.pipes:
            pipe.send(("reset", None))
        replies = {index: pipe.recv() for index, pipe in enumerate(self.pipes)}
        steps = 0
        while running:
            for index in running:
                self.pipes[index].send(("step", choose(np.array(replies[index]["avail_actions"]))))
            replies = {index: self.pipes[index].recv() for index in running}
            steps += len(running)
            running = [index for index in running if not replies[index]["terminated"]]
        return steps

    def close(self) -> None:
        """End all processes."""
        for pipe in self.pipes:
            pipe.send(("close", None))
        for worker in self.workers:
            worker.join()
