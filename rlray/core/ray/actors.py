"""Actor classes for Ray: one method for each of the user's, which calls it and tells what it raises."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import ray

from rlray.core.calls import check_generator, method_of
from rlray.core.engine import ActorInfo, Code
from rlray.core.exceptions import ActorExit, task_error
from rlray.core.ray import kv
from rlray.core.ray.errors import raised
from rlray.core.ray.hosting import PLAIN, How, Loaded, attach, check_arguments, loaded, one, returned, told
from rlray.core.serialization import dumps_error
from rlray.core.signatures import MethodTable

ANY = "rlray_call"
"""The method for calls that are not plain: other numbers of results, retried exceptions, methods of every actor."""
STREAM = "rlray_stream"
"""The same for generators."""

here: Hosted | None = None
"""The actor that this process is."""


class Hosted:
    """The user's instance in its process."""

    def __init__(
        self, body: Loaded, methods: MethodTable, retries: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        global here
        attach()
        context = ray.get_runtime_context()
        actor_id = context.get_actor_id() or ""
        self.name = body.name
        self.info = ActorInfo(bytes.fromhex(actor_id), body.name, methods, retries)
        here = self
        try:
            cls = body.target()
            check_arguments(args, kwargs)
            self.instance = cls(*args, **kwargs)
        except BaseException as error:  # also SystemExit: the caller is told
            failure = task_error(f"{body.name}.__init__", error, f"actor {body.name}")
            kv.put(kv.FAILED, actor_id, dumps_error(failure))
            raise raised(failure) from None

    def method(self, name: str) -> Callable[..., Any]:
        """What a call of that name calls."""
        return method_of(self.instance, name)

    def told(self, error: BaseException, name: str, how: How = PLAIN) -> BaseException:
        """What to raise for an error of a method."""
        if isinstance(error, ActorExit):
            try:
                ray.actor.exit_actor()
            except BaseException as leaving:  # SystemExit, or what an asynchronous actor leaves with
                return leaving
        return told(error, f"{self.name}.{name}", how, self.name)


def actor_class(code: Code, methods: MethodTable, groups: Mapping[str, int] | None) -> Any:
    """Ray's actor class for a class of the user's. It takes (methods, retries, *arguments)."""
    body = loaded(code)
    try:
        cls = body.target()
    except Exception:  # its actors will say so
        cls = object
    members = {name: getattr(cls, name, None) for name in methods.methods if not name.startswith("__ray_")}
    asynchronous = any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in members.values())
    attributes: dict[str, Any] = {
        "__init__": _constructor(body),
        ANY: _any_async if asynchronous else _any,
        STREAM: _stream_async if asynchronous else _stream,
    }
    for name, member in members.items():
        attributes[name] = _method(name, member, without_arguments=methods.methods[name][0].takes_nothing)
    made = type(code.name, (), attributes)
    made.__module__ = "rlray_actors"
    return ray.remote(**({"concurrency_groups": dict(groups)} if groups else {"num_cpus": 0}))(made)


def _constructor(body: Loaded) -> Callable[..., None]:
    def __init__(self: Any, methods: MethodTable, retries: int, *args: Any, **kwargs: Any) -> None:
        self.hosted = Hosted(body, methods, retries, args, kwargs)

    return __init__


def _method(name: str, member: Any, without_arguments: bool) -> Callable[..., Any]:
    """Ray checks what a method is given by its signature; that was done already, and none is cheaper."""
    if inspect.iscoroutinefunction(member):

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            hosted = self.hosted
            try:
                check_arguments(args, kwargs)
                return await getattr(hosted.instance, name)(*args, **kwargs)
            except BaseException as error:
                raise hosted.told(error, name) from None

    elif without_arguments:

        def method(self: Any) -> Any:  # type: ignore[misc]
            hosted = self.hosted
            try:
                return one(getattr(hosted.instance, name)())
            except BaseException as error:
                raise hosted.told(error, name) from None

    else:

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            hosted = self.hosted
            try:
                check_arguments(args, kwargs)
                return one(getattr(hosted.instance, name)(*args, **kwargs))
            except BaseException as error:
                raise hosted.told(error, name) from None

    method.__name__ = method.__qualname__ = name
    return method


def _any(self: Any, name: str, how: How, *args: Any, **kwargs: Any) -> Any:
    hosted: Hosted = self.hosted
    try:
        check_arguments(args, kwargs)
        return returned(f"{hosted.name}.{name}", how.count, hosted.method(name)(*args, **kwargs))
    except BaseException as error:
        raise hosted.told(error, name, how) from None


async def _any_async(self: Any, name: str, how: How, *args: Any, **kwargs: Any) -> Any:
    hosted: Hosted = self.hosted
    try:
        check_arguments(args, kwargs)
        result = hosted.method(name)(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        return returned(f"{hosted.name}.{name}", how.count, result)
    except BaseException as error:
        raise hosted.told(error, name, how) from None


def _stream(self: Any, name: str, how: How, *args: Any, **kwargs: Any) -> Iterator[Any]:
    yield from _run_stream(self.hosted, name, how, args, kwargs)


async def _stream_async(self: Any, name: str, how: How, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    async for value in _run_stream_async(self.hosted, name, how, args, kwargs):
        yield value


def _run_stream(hosted: Hosted, name: str, how: How, args: Any, kwargs: Any) -> Iterator[Any]:
    try:
        check_arguments(args, kwargs)
        result = hosted.method(name)(*args, **kwargs)
        check_generator(f"{hosted.name}.{name}", result, Iterator)
        for value in result:  # noqa: UP028 -- Ray sends it values that are not for user code
            yield value
    except GeneratorExit:
        raise
    except BaseException as error:
        raise hosted.told(error, name, how) from None


async def _run_stream_async(hosted: Hosted, name: str, how: How, args: Any, kwargs: Any) -> AsyncIterator[Any]:
    try:
        check_arguments(args, kwargs)
        result = hosted.method(name)(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            async for value in result:
                yield value
        else:
            check_generator(f"{hosted.name}.{name}", result, Iterator)
            for value in result:
                yield value
    except GeneratorExit:
        raise
    except BaseException as error:
        raise hosted.told(error, name, how) from None
