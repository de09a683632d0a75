"""For the tests of programs that use edgellm: a model without weights, which says what it is told.

from edgellm.testing import FakeModel
model = FakeModel("Hello!")
assert model.generate("Hi", max_tokens=9).text == "Hello!"
"""

from .fake_model import FakeCall, FakeModel

__all__ = ["FakeCall", "FakeModel"]
