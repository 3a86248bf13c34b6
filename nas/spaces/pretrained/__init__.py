"""Networks with weights that somebody has trained: where they are, how a file is read without unpickling, how it is given to a module.

`open_pretrained` is the way in; `find_weights` says without building anything whether weights are at hand.
"""

from nas.spaces.pretrained.assignment import Assignment, assign, load_weights, verify
from nas.spaces.pretrained.at_hand import networks_at_hand
from nas.spaces.pretrained.files import read_tensors
from nas.spaces.pretrained.network import Pretrained, open_pretrained
from nas.spaces.pretrained.origins import Origin, find_weights

__all__ = [
    "Assignment",
    "Origin",
    "Pretrained",
    "assign",
    "find_weights",
    "load_weights",
    "networks_at_hand",
    "open_pretrained",
    "read_tensors",
    "verify",
]
