"""The asynchronous SDK behind the face of the synchronous one, so that one test speaks for both."""

import asyncio
import inspect


class Loop:
    """An event loop that runs one thing at a time."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()

    def wait(self, value):
        async def wait():
            return await value
        return self.loop.run_until_complete(wait())

    def wrap(self, value):
        if inspect.isawaitable(value):
            value = self.wait(value)
        is_plain = value is None or isinstance(value, (str, bytes, int, float, bool, list, dict, tuple))
        is_object = hasattr(value, "model_dump") and not hasattr(value, "__aiter__")
        return value if is_plain or is_object else Blocking(self, value)


class Blocking:
    def __init__(self, loop, inner):
        self._loop, self._inner = loop, inner

    def __getattr__(self, name):
        return self._loop.wrap(getattr(self._inner, name))

    def __call__(self, *args, **options):
        return self._loop.wrap(self._inner(*args, **options))

    def __getitem__(self, key):
        return self._inner[key]

    def __iter__(self):
        items = self._inner.__aiter__()
        while True:
            try:
                yield self._loop.wait(items.__anext__())
            except StopAsyncIteration:
                return

    def __enter__(self):
        return self._loop.wrap(self._inner.__aenter__())

    def __exit__(self, *exception):
        return self._loop.wait(self._inner.__aexit__(*exception))
