"""One set of weights for all members of an elastic space.

Every slot holds tensors as large as its largest part along each axis. A member runs its own small modules on its own
slices: a leading slice of every axis, the leading slice of each part where an axis stacks several (`elastic_parts`), the
centre of a convolution's window. So the path through the supernet is what a member taken out computes, by construction.

Source:
    Slices of the largest: "Once for All" (arXiv 1908.09791) and BigNAS (arXiv 2003.11142); differs in that every member
    is a module of its own run by `torch.func.functional_call`, so that operators need not know that they are elastic,
    and in that a smaller kernel takes the centre as it is, without OFA's learned transformation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas.errors import NasError
from nas.graphs.operators import Shape
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.operator_family import follow, is_scheduled
from nas.spaces.space import Resolution
from nas.training.recipe import Sharing
from nas.training.supernet.norm import SynchronisedBatchNorm

log = logging.getLogger(__name__)

_MOST_LINKS = 8192  # by hand


@dataclass(frozen=True)
class Link:
    """A part of a member with its access to the shared weights.

    Attributes:
        module: The part's module without numbers in its parameters; its buffers are its own.
        names: Of the parameters.
        shapes: Of the parameters.
        views: Slices of the shared weights, in a shape from which `shapes` follow by reshaping.
        gradients: Slices of the shared gradient, likewise.
        norms: Batch norms in `module`.
        scheduled: Whether something in `module` changes with the training.
    """

    module: nn.Module
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    views: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    norms: tuple[nn.modules.batchnorm._BatchNorm, ...]
    scheduled: bool = False


@dataclass(frozen=True)
class Path:
    """A member as a path through the supernet.

    Attributes:
        links: In order.
        weights: The member's own copy of its weights, one mapping a link; leaves of the autograd graph.
    """

    links: tuple[Link, ...]
    weights: tuple[dict[str, Tensor], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the member. (n, 3, h, w) -> (n, classes)."""
        for link, weights in zip(self.links, self.weights, strict=True):
            x = functional_call(link.module, weights, (x,), tie_weights=False)  # no part ties weights; looking takes as long as some parts
        return x

    def add_gradients(self) -> None:
        """Add the gradients of the member's weights to those of the supernet."""
        for link, weights in zip(self.links, self.weights, strict=True):
            for leaf, gradient in zip(weights.values(), link.gradients, strict=True):
                if leaf.grad is not None:
                    gradient.add_(leaf.grad.reshape(gradient.shape))

    def slope(self) -> Tensor:
        """Return the norm of the gradient of the member's weights, a scalar."""
        leaves = (leaf.grad for weights in self.weights for leaf in weights.values() if leaf.grad is not None)
        return nn.utils.get_total_norm(leaves)

    def train(self, mode: bool = True) -> Path:
        """Make batch norms use the statistics of the batch (or their own, where `mode` is false)."""
        for link in self.links:
            if link.module.training is not mode:
                link.module.train(mode)
        return self

    def follow(self, progress: float) -> Path:
        """Tell parts that change with their training how far it has come; see `nas.spaces.operator_family.Scheduled`."""
        for link in self.links:
            if link.scheduled:
                follow(link.module, progress)
        return self

    def norms(self) -> Iterator[nn.modules.batchnorm._BatchNorm]:
        """Yield the member's batch norms."""
        for link in self.links:
            yield from link.norms


class Supernet:
    """The shared weights of a space.

    Args:
        space: Whose members share.
        num_classes: Of the head.
        resolution: Proxy resolution; `ElasticSpace.proxy` says at which size a member runs.
        seed: Of the initial weights.
        device: Where the weights live.
        sharing: Which members share; by default all do.

    Attributes:
        apart: Whether members use the copies of the weights that `sharing` says; otherwise all use the first.
        flat: All weights in one tensor; those of two or more axes (which decay) come first, one copy after the other.
        gradient: Of `flat`.
        decayed: Number of elements that decay.
        history: Of their training, one entry an epoch; empty where there was none.
    """

    history: Sequence[Mapping[str, float]] = ()

    def __init__(
        self,
        space: ElasticSpace,
        num_classes: int,
        resolution: Resolution,
        *,
        seed: int = 0,
        device: str = "cpu",
        sharing: Sharing | None = None,
    ) -> None:
        self.space, self.num_classes, self.resolution, self.device = space, num_classes, resolution, torch.device(device)
        self.synchronised, self.apart, self.sharing = False, True, sharing or Sharing()
        self.copies = self.sharing.copies(space)
        shapes: dict[str, Shape] = {}
        built: list[tuple[Part, dict[str, Tensor], dict[str, int], frozenset[str]]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # inside the fork: the global generator is put back as it was
            for slot, parts in space.slots(resolution, num_classes).items():
                for part in parts:
                    module = part.build()
                    held = {name: p.detach() for name, p in module.named_parameters()}
                    for name, p in held.items():
                        key = f"{slot}/{name}"
                        shapes[key] = _union(key, shapes.get(key, tuple(p.shape)), tuple(p.shape))
                    built.append((part, held, _stacks(module), _windows(module)))
        first = sorted(shapes)
        shapes = {self._key(copy, key): shapes[key] for copy in range(self.copies) for key in first}
        order = sorted(shapes, key=lambda key: len(shapes[key]) < 2)  # keeps the order of those that decay, and of the others
        sizes = [torch.Size(shapes[key]).numel() for key in order]
        self.decayed = sum(size for key, size in zip(order, sizes, strict=True) if len(shapes[key]) > 1)
        self.flat = torch.zeros(sum(sizes), device=self.device)
        self.gradient = torch.zeros_like(self.flat)
        self.tensors = _cut(self.flat, order, sizes, shapes)
        self._gradients = _cut(self.gradient, order, sizes, shapes)
        for part, held, stacks, windows in sorted(built, key=lambda item: sum(p.numel() for p in item[1].values())):
            for name, p in held.items():
                view = _slice(self.tensors[self._key(0, f"{part.slot}/{name}")], tuple(p.shape), stacks.get(name, 1), name in windows)
                view.copy_(p.view(view.shape))
        self._links: dict[tuple[int, Part], Link] = {}
        self.spread()

    def _key(self, copy: int, key: str) -> str:
        return f"copy{copy}/{key}" if self.copies > 1 else key

    def spread(self, *others: tuple[Tensor, Tensor]) -> None:
        """Make all copies of the weights as the first is.

        Args:
            others: Of which the same is done: what an optimiser keeps for each weight that decays, and for each of the others.
        """
        if self.copies > 1:
            for tensor in [part for pair in [(self.flat[: self.decayed], self.flat[self.decayed :]), *others] for part in pair]:
                rows = tensor.view(self.copies, -1)
                rows[1:] = rows[:1]

    @cached_property
    def layout(self) -> str:
        """Hash of the names and shapes of the weights; of two supernets with one layout, either loads the other's file."""
        text = repr([(name, tuple(tensor.shape)) for name, tensor in self.tensors.items()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """16 hex digits over the weights' bytes and what they are run at."""
        digest = hashlib.sha256(f"{self.space.name} {self.num_classes} {self.resolution} {self.layout}".encode())
        digest.update(self.flat.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def path(self, architecture: Architecture, *, gradients: bool = False, resolution: Resolution | None = None) -> Path:
        """Return a member as a path, with its own copy of its weights as they are now; for pictures of the proxy resolution, or a smaller one."""
        size = self.space.proxy(architecture, resolution or self.resolution)
        copy = self.sharing.copy_of(self.space, architecture) if self.apart else 0
        links = tuple(self._link(part, copy) for part in self.space.parts(architecture, size, self.num_classes))
        weights: list[dict[str, Tensor]] = []
        for link in links:
            own = (_own(view, shape) for view, shape in zip(link.views, link.shapes, strict=True))
            weights.append({name: nn.Parameter(tensor, requires_grad=gradients) for name, tensor in zip(link.names, own, strict=True)})
        return Path(links, tuple(weights))

    def extract(self, architecture: Architecture, resolution: Resolution | None = None, path: Path | None = None) -> nn.Module:
        """Return a member as a module of its own, whose weights are its own and as small as it is.

        Its batch norms have fresh statistics; see `nas.training.supernet.statistics.recalibrate`. Parameters whose shape depends
        on the resolution (tables over positions, patches) are interpolated linearly; a convolution's window keeps its sum,
        so that it says the same of the same picture at another size.

        Args:
            architecture: The member.
            resolution: At which it is to run; defaults to the member's proxy.
            path: The member with weights of its own, where they are no longer the shared ones.
        """
        size = resolution or self.space.proxy(architecture, self.resolution)
        with torch.random.fork_rng(devices=[]):
            module = self.space.build(architecture, num_classes=self.num_classes, resolution=size)
        path = path or self.path(architecture)
        with torch.no_grad():
            for child, weights in zip(module.children(), path.weights, strict=True):
                kernels = {id(part.weight) for part in child.modules() if isinstance(part, nn.Conv2d)}
                for name, p in child.named_parameters():
                    p.copy_(resize(weights[name], tuple(p.shape)))
                    if id(p) in kernels:
                        p.mul_(weights[name].shape[2:].numel() / p.shape[2:].numel())
        return module.to(self.device)

    def _link(self, part: Part, copy: int = 0) -> Link:
        if (copy, part) in self._links:
            return self._links[copy, part]
        with torch.random.fork_rng(devices=[]):
            module = part.build()
        if self.synchronised:
            module = SynchronisedBatchNorm.convert(module)
        stacks, windows = _stacks(module), _windows(module)
        names, shapes, views, gradients = [], [], [], []
        for name, p in module.named_parameters():
            key, shape = self._key(copy, f"{part.slot}/{name}"), tuple(p.shape)
            if key not in self.tensors:
                raise NasError(f"supernet: {part.slot} has no weights for {name}. Expected the space's slots to cover every part.")
            names.append(name)
            shapes.append(shape)
            views.append(_slice(self.tensors[key], shape, stacks.get(name, 1), name in windows))
            gradients.append(_slice(self._gradients[key], shape, stacks.get(name, 1), name in windows))
        module.to(self.device)
        _strip(module)
        norms = tuple(m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        if len(self._links) >= _MOST_LINKS:
            self._links.clear()
        self._links[copy, part] = Link(module, tuple(names), tuple(shapes), tuple(views), tuple(gradients), norms, is_scheduled(module))
        return self._links[copy, part]


def _union(key: str, a: Shape, b: Shape) -> Shape:
    if len(a) != len(b):
        raise NasError(f"supernet: {key} has another number of axes in another setting, got {a} and {b}.")
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def _cut(flat: Tensor, order: Sequence[str], sizes: Sequence[int], shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    return {key: piece.view(shapes[key]) for key, piece in zip(order, flat.split(list(sizes)), strict=True)}


def _stacks(module: nn.Module) -> dict[str, int]:
    """Return the number of stacked parts by parameter name."""
    found = {}
    for path, part in module.named_modules():
        for name, count in getattr(part, "elastic_parts", {}).items():
            found[f"{path}.{name}" if path else name] = int(count)
    return found


def _windows(module: nn.Module) -> frozenset[str]:
    """Return the names of parameters whose last two axes are a window, of which a smaller one takes the centre."""
    found = []
    for path, part in module.named_modules():
        own = ("weight",) if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) else getattr(part, "elastic_windows", ())
        found += [f"{path}.{name}" if path else name for name in own]
    return frozenset(found)


def _slice(tensor: Tensor, shape: Shape, stack: int, window: bool) -> Tensor:
    """Return the part of `tensor` that a parameter of `shape` uses, in a shape from which `shape` follows by reshaping."""
    if stack > 1:
        tensor = tensor.view(stack, tensor.shape[0] // stack, *tensor.shape[1:])
        shape = (stack, shape[0] // stack, *shape[1:])
    if any(want > have for want, have in zip(shape, tensor.shape, strict=True)):
        raise NasError(f"supernet: a part is larger than its slot, got {shape}. Expected at most {tuple(tensor.shape)}.")
    first_window = tensor.ndim - 2 if window else tensor.ndim
    for axis, (want, have) in enumerate(zip(shape, tensor.shape, strict=True)):
        if want != have:
            tensor = tensor.narrow(axis, (have - want) // 2 if axis >= first_window else 0, want)
    return tensor


def _own(view: Tensor, shape: Shape) -> Tensor:
    """Return a copy of a slice in the shape and the memory format that a module of its own would have."""
    if len(shape) != 4:
        return view.clone().reshape(shape)
    own = torch.empty(shape, dtype=view.dtype, device=view.device, memory_format=torch.channels_last)
    return own.copy_(view.reshape(shape))


def _strip(module: nn.Module) -> None:
    """Put parameters on the meta device: the numbers come from the supernet, buffers stay."""
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(p.detach().to("meta"), requires_grad=False))


def resize(tensor: Tensor, shape: Shape) -> Tensor:
    """Return a tensor interpolated linearly along every axis in which it differs from `shape`."""
    for axis, size in enumerate(shape):
        if tensor.shape[axis] != size:
            moved = tensor.movedim(axis, -1)
            flat = F.interpolate(moved.reshape(1, -1, moved.shape[-1]), size, mode="linear", align_corners=False)
            tensor = flat.view(*moved.shape[:-1], size).movedim(-1, axis)
    return tensor
