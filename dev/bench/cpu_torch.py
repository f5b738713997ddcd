#!/usr/bin/env python3
"""cpu_torch.py THREADS - PyTorch's part of `make bench`: cpu.py starts it and asks for steps.

A line of stdin names a work's sizes, a type, whether to compile, and how many steps to take; a line
of stdout answers with the seconds of each, or an error. A model and its optimizer stay for the next
question, so that each is compiled once. PyTorch as it is fast: fused attention and AdamW, autocast.
"""
import json
import os
import sys
import time

import torch

from gpu_torch import torch_model


class Trainee:
    def __init__(self, layers, heads, channels, vocabulary, batch, seq):
        self.model = torch_model(layers, heads, channels, vocabulary, seq)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.vocabulary, self.shape = vocabulary, (batch, seq + 1)
        self.forward = {}   # by type and whether compiled

    def step(self, dtype, compiled):
        if (dtype, compiled) not in self.forward:
            made = torch.compile(self.model, dynamic=False) if compiled else self.model
            self.forward[dtype, compiled] = made
        tokens = torch.randint(self.vocabulary, self.shape)
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = self.forward[dtype, compiled](inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)   # what compilers print is no answer
torch.set_num_threads(int(sys.argv[1]))
print(json.dumps(torch.__version__), file=answers)
trainees = {}
for line in sys.stdin:
    question = json.loads(line)
    work = json.dumps(question["work"])
    try:
        if work not in trainees:
            trainees[work] = Trainee(**question["work"])
        answer = [trainees[work].step(question["dtype"], question["compiled"])
                  for _ in range(question["steps"])]
    except Exception as error:   # no compiler, say: the others go on
        answer = {"error": repr(error)[:300]}
    print(json.dumps(answer), file=answers)
