"""What every training script shares: a time budget, a learning rate that follows it, an average of the weights, checkpoints.

A run is resumable: everything that the next step needs is in `<runs>/<name>.pt`, written as temporary file and renamed, every
few minutes. Running the same command again goes on where the file says, until the budget is used up.

    python -m torch.distributed.run --nproc-per-node 2 -m training.image_to_video --threads 1

trains on two processes, whose gradients are averaged in every step: a batch of twice the size.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from training.muon import Muon, product_dtype


def arguments(description: str, minutes: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("training/runs"), help="where checkpoints of the training live")
    parser.add_argument("--minutes", type=float, default=minutes, help="training time in all, over every resumption")
    parser.add_argument("--fine-tune", action="store_true", help="without a run to resume, start from the bundled checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def lower_precision(device: str) -> torch.autocast:
    """bfloat16 for the products, where the machine has it."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=product_dtype(device) is torch.bfloat16)


def optimizers(module: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for the rest."""
    inside, rest = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1 and min(parameter.shape[0], parameter[0].numel()) > 1
            (inside if is_matrix and not re.search(r"conv_in|conv_out|embeddings", name) else rest).append(parameter)
    found = [torch.optim.AdamW(rest, lr=lr, weight_decay=1e-3, betas=(0.9, 0.98), fused=True)] if rest else []
    return [*found, Muon(inside, lr)] if inside else found


class Run:
    """One training run of `module`: iterate over it for steps, call `learn(loss)` in each."""

    def __init__(self, name: str, module: torch.nn.Module, options: argparse.Namespace, *, lr: float, ema: float = 0.998) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self.name, self.module, self.peak_lr, self.ema_decay = name, module, lr, ema
        self.path = options.runs / f"{name}.pt"
        self.budget = options.minutes * 60
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizers = optimizers(module, lr)
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.seconds, self.mean_loss = 0, 0.0, None
        if "WORLD_SIZE" in os.environ and not dist.is_initialized():  # set by torch.distributed.run
            dist.init_process_group("gloo")
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if self.path.exists():
            state = torch.load(self.path, map_location=options.device, weights_only=True)
            module.load_state_dict(state["module"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.average = [a.to(p.device) for a, p in zip(state["average"], self.parameters, strict=True)]
            self.step, self.seconds = state["step"], state["seconds"]
            print(f"{name}: resumed at step {self.step}, {self.seconds / 60:.0f} min", flush=True)

    @property
    def seed(self) -> int:
        """What to draw from next: another after every resumption, and in every process."""
        return 2 * self.step * self.processes + self.rank

    @property
    def progress(self) -> float:
        """How much of the budget is used, 0 to 1."""
        return self.seconds / self.budget

    def __iter__(self) -> Iterator[int]:
        saved = reported = time.monotonic()
        while self.seconds < self.budget:
            began = time.monotonic()
            yield self.step
            now = time.monotonic()
            self.seconds = self._same_everywhere(self.seconds + now - began)
            self.step += 1
            if self.rank:
                continue
            if now - reported > 30:
                print(f"{self.name}: step {self.step} {self.seconds / 60:.1f} min loss {self.mean_loss:.4f}", flush=True)
                reported = now
            if now - saved > 150:
                self.save()
                saved = now
        if not self.rank:
            self.save()

    def learn(self, loss: torch.Tensor) -> None:
        """One optimiser step: warm-up, then the rate falls with the budget; the average of the weights follows."""
        left = max(1e-3, 1 - self.progress)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self.peak_lr * min(1, (self.step + 1) / 150) * left
        loss.backward()
        if self.processes > 1:
            self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        value = loss.item()
        self.mean_loss = value if self.mean_loss is None else 0.98 * self.mean_loss + 0.02 * value

    def _same_everywhere(self, seconds: float) -> float:
        """The first process's clock: all must end at the same step."""
        if self.processes == 1:
            return seconds
        clock = torch.tensor(seconds, dtype=torch.float64)
        dist.broadcast(clock, 0)
        return clock.item()

    @torch.no_grad()
    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        shared = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(shared)
        for gradient, part in zip(gradients, (shared / self.processes).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(
            {"module": self.module.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
             "average": self.average, "step": self.step, "seconds": self.seconds}, part,
        )  # fmt: skip
        part.replace(self.path)


def load_bundled(module: torch.nn.Module, checkpoint: Path) -> None:
    """The weights of a released checkpoint into a module whose parts have the names of its components."""
    weights = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    print(f"starting from {checkpoint.name}", flush=True)


def load_average(path: Path, module: torch.nn.Module) -> torch.nn.Module:
    """The averaged weights of a run, into a module of the same shape; eval mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    with torch.no_grad():
        for parameter, average in zip((p for p in module.parameters() if p.requires_grad), state["average"], strict=True):
            parameter.copy_(average)
    return module.eval()
