"""Many processes at one tuning, as torchrun or `--processes` starts them.

Each has its own examples of a step. Their gradients are summed (all_reduce), every process holding the whole network;
or the network is sharded (FSDP2): each keeps its rows of every parameter, of its gradient and of its moments, and
has a block's whole weights only while it computes it. Files hold whole tensors, written by the first process; so a run
goes on with any number of processes. W processes, of which this is number `rank`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from brolly.errors import OptionError, RecipeError
from brolly.train.tuning.memory import spare
from brolly.train.tuning.objectives import Idle, Objective, Samples
from brolly.train.tuning.recompute import blocks_of

T = TypeVar("T")
FREE = {"next-token", "dpo", "ipo", "hinge", "orpo"}  # objectives whose passes all processes can take in step


class World(NamedTuple):
    """The processes."""

    size: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def told(self, said: T) -> T:
        """What the first process says."""
        if self.size == 1:
            return said
        box = [said]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Numbers added up over all processes."""
        if self.size == 1:
            return list(values)
        kind = torch.float32 if device.type == "mps" else torch.float64
        found = torch.tensor(values, dtype=kind, device=device)
        dist.all_reduce(found)
        return [float(x) for x in found]


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def own_device(asked: str | None) -> str | None:
    """A process's own GPU, where there are several processes."""
    own = os.environ.get("WORLD_SIZE", "1") != "1" and torch.cuda.is_available() and asked in (None, "cuda")
    return f"cuda:{local_rank()}" if own else asked


def own_folder(name: str) -> str:
    """A name that no other process has."""
    rank = os.environ.get("RANK", "0")
    return name if rank == "0" else f"{name}-{rank}"


@contextmanager
def joined() -> Iterator[World]:
    """This process among the others, whom it waits for; leaves them at the end."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    yield World(size, dist.get_rank())
    if own:  # after an error nobody waits for the others
        dist.destroy_process_group()


def check(objective: Objective, world: World, shard: bool | None) -> None:
    """Refuse what many processes cannot do. Raises OptionError."""
    if world.size == 1:
        if shard:
            raise OptionError("--shard shares a network among processes, and this is one; add --processes 2, or more.")
        return
    if shard and (objective.name not in FREE or isinstance(objective, Samples)):
        raise OptionError(f"{objective.name} is not learnt by a sharded network; leave out --shard.")


def meet(run: Any, world: World) -> None:
    """Give a run its part in what the processes do together. Raises RecipeError, OptionError."""
    shard = run.asked.shard or world.told(needed(run, world))
    check(run.objective, world, run.asked.shard)
    if run.asked.shard:  # it was loaded beside the GPU
        run.student.device = torch.device(own_device(None) or run.student.device)
    release(run)
    run.learning = Learning(run.network, world, run.student.device, shard)
    if world.size > 1:
        how = "each with its share of the network" if shard else "each with the whole network"
        run.notes.append(f"{world.size} processes, {how}")


def release(run: Any) -> None:
    """Give back the pages of the file, of which what is trained whole has copies now; the others are read again."""
    give_back = vars(run.student).get("_release")
    for name, p in run.network.named_parameters():
        if run.lora is None:
            p.data = p.data.contiguous()  # those of GPT-2 are transposed views
            if give_back:
                with suppress(KeyError):  # a new classifier is in no file
                    give_back(name)


def needed(run: Any, world: World) -> bool:
    """Whether a step does not fit into each of many processes, and the network can be sharded."""
    if world.size == 1 or run.objective.name not in FREE or not hasattr(run.network, "output"):
        return False
    beside = 1 if run.student.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return run.memory.to_come * beside > spare(run.student.device)


class Learning:
    """What is trained, by all processes. `moved`: what this one's optimiser moves, by the parameters' names."""

    def __init__(self, network: nn.Module, world: World, device: torch.device, shard: bool = False) -> None:
        self.network, self.world, self.device, self.shard = network, world, device, shard
        if shard:
            shard_blocks(network, world, device)
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.moved: dict[str, nn.Parameter] = self.trained
        if shard:
            self.moved = {name: nn.Parameter(local_of(p)) for name, p in self.trained.items()}
            for name, p in self.moved.items():
                p.n_whole = self.trained[name].numel()  # type: ignore[attr-defined]
        self._serving: dict[str, tuple[str, Tensor]] = {}

    def backward(self, objective: Objective, parts: list[Any], spare: Any, total: float) -> Tensor:
        """Add the gradients of this process's parts, and of all others'; returns the loss of all.

        A sharded network computes as many parts in each process: `spare`, an example, fills up, and counts nothing.
        """
        if self.shard:
            most = torch.tensor(len(parts), device=self.device)
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
            parts = [*parts, *(Idle([spare]) for _ in range(int(most) - len(parts)))]
        loss = objective.backward(parts, total).to(self.device)
        if self.world.size > 1:
            dist.all_reduce(loss)
        if self.shard:
            for name, p in self.trained.items():
                self.moved[name].grad = None if p.grad is None else local_of(p.grad)
        elif self.world.size > 1:
            for p in self.trained.values():
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
                dist.all_reduce(p.grad)
        return loss

    def clip(self, most: float) -> float:
        """Shorten the gradient to a length; returns what it was."""
        if not self.shard:
            return float(nn.utils.clip_grad_norm_(self.moved.values(), most))
        grads = [p.grad for p in self.moved.values() if p.grad is not None]
        (square,) = self.world.sums([sum(float(g.double().square().sum()) for g in grads)], self.device)
        length = math.sqrt(square) if square >= 0 else square  # a NaN stays one
        if length > most:
            for g in grads:
                g *= most / (length + 1e-6)
        return length

    def forget(self) -> None:
        """Let go of the gradients."""
        for p in (*self.moved.values(), *self.trained.values()):
            p.grad = None

    # Whole tensors: the first process asks for them one by one, and the others hand in their rows.

    def lead(self, tensors: Mapping[str, Tensor], work: Callable[[], T]) -> T | None:
        """Have the first process do something that takes `whole` tensors of these, and all others help it."""
        if not self.shard:
            return work() if self.world.first else None
        owners = list(self.trained)
        self._serving = {name: (owner_of(name, owners), t) for name, t in tensors.items()}
        if self.world.first:
            said = "failed"
            try:
                found, said = work(), ""
                return found
            finally:
                self.world.told(said)
        while (name := self.world.told("")) in self._serving:
            self._gather(name)
        if name:
            raise RecipeError("the first process could not write; it tells why.")
        return None

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """All rows of a tensor, in the first process while it leads."""
        if not self.shard:
            return tensor
        self.world.told(name)
        found = self._gather(name)
        assert found is not None
        return found

    def parameter(self, name: str) -> Tensor | None:
        """A parameter of the network, whole, if it is trained."""
        found = self.moved.get(name)
        return None if found is None else self.whole(f"network.{name}", found.detach())

    def put_together(self) -> None:
        """Give the first process's network whole parameters where it was trained: after the last step."""
        for name in self.trained if self.shard else ():
            owner, _, leaf = name.rpartition(".")
            found = self.parameter(name)
            assert found is not None
            vars(self.network.get_submodule(owner))["_parameters"][leaf] = nn.Parameter(found)

    def shape(self, name: str, tensor: Tensor) -> tuple[int, ...]:
        """Of the whole tensor."""
        owner = self.trained[owner_of(name, list(self.trained))] if self.shard else None
        return (owner.shape[0], *tensor.shape[1:]) if owner is not None and tensor.dim() else tuple(tensor.shape)

    def rows(self, name: str, whole: Tensor) -> Tensor:
        """This process's rows of a whole tensor."""
        if not self.shard or not whole.dim():
            return whole
        each = -(-len(whole) // self.world.size)
        return whole[each * self.world.rank : each * (self.world.rank + 1)]

    def _gather(self, name: str) -> Tensor | None:
        owner, tensor = self._serving[name]
        if not tensor.dim():
            return tensor
        n = self.trained[owner].shape[0]
        each = -(-n // self.world.size)
        own = tensor.new_zeros(each, *tensor.shape[1:])
        own[: len(tensor)] = tensor
        parts = [torch.empty_like(own) for _ in range(self.world.size)] if self.world.first else None
        dist.gather(own, parts, dst=0)
        return None if parts is None else torch.cat(parts)[:n]


def owner_of(name: str, trained: Sequence[str]) -> str:
    """The parameter that a checkpoint's tensor belongs to: network.NAME, or optimizer.INDEX.KEY."""
    kind, _, rest = name.partition(".")
    return rest if kind == "network" else trained[int(rest.partition(".")[0])]


def local_of(tensor: Any) -> Tensor:
    """This process's rows of a sharded tensor, as a view."""
    found: Tensor = tensor.detach().to_local()
    return found


def shard_blocks(network: nn.Module, world: World, device: torch.device) -> None:
    """Leave each process its rows of every parameter; what lies outside the blocks is one more block.

    Raises OptionError where a network is not one row of blocks, called as a whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not hasattr(network, "output"):
        raise OptionError(f"a {type(network).__name__} is not sharded; leave out --shard.")
    warnings.filterwarnings("ignore", ".* returned a view tensor")  # nothing is done in place on what blocks return
    mesh = init_device_mesh(device.type, (world.size,))
    for module in (*blocks_of(network), network):
        sharded = fully_shard(module, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)  # sums: the objective has divided by all
        sharded.set_force_sum_reduction_for_comms(True)
