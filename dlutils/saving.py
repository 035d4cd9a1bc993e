"""Fitted models that can be saved whole: with the classes that a notebook's cell has made."""

import pickle
from dataclasses import fields

import cloudpickle
from torch import nn


class Portable:
    """A dataclass whose pickles other programs can load.

    A pickle names a class by its module and holds no code. One that was made in a cell or a script,
    in the module `__main__`, is unknown to every other program: then the fields are saved by value,
    code included. Cached properties are left out: they are computed anew.
    """

    def __getstate__(self) -> dict[str, object] | bytes:
        """The fields, as bytes if a part of them is of `__main__`."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [value for value in state.values() if not isinstance(value, nn.Module)]
        nets = (value for value in state.values() if isinstance(value, nn.Module))
        parts += [module for net in nets for module in net.modules()]
        of_main = any(getattr(part, "__module__", None) == "__main__" for part in parts)
        return cloudpickle.dumps(state) if of_main else state

    def __setstate__(self, state: dict[str, object] | bytes) -> None:
        """The fields, as they were."""
        vars(self).update(pickle.loads(state) if isinstance(state, bytes) else state)
