"""Trains a small network on made-up data and says how long it took, and on what."""

import json
import sys
import time

import torch

device = torch.device(sys.argv[1])
torch.manual_seed(0)
rows = torch.randn(60000, 784, device=device)
labels = (rows[:, :392].sum(1) > rows[:, 392:].sum(1)).long()
network = torch.nn.Sequential(
    torch.nn.Linear(784, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 2)
).to(device)
optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)


def finish():
    if device.type == "cuda":
        torch.cuda.synchronize()


def steps(count):
    for step in range(count):
        pick = torch.arange(step * 512, step * 512 + 512, device=device) % len(rows)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(rows[pick]), labels[pick]).backward()
        optimiser.step()
    finish()


steps(5)
started = time.perf_counter()
count = int(sys.argv[2])
steps(count)
took = time.perf_counter() - started
with torch.no_grad():
    accuracy = (network(rows[:10000]).argmax(1) == labels[:10000]).float().mean().item()
name = torch.cuda.get_device_name(0) if device.type == "cuda" else "cpu"
print(json.dumps({"device": name, "step_ms": took / count * 1e3, "accuracy": accuracy}))
