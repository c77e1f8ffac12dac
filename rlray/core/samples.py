"""A run's own metrics, as samples for Prometheus, made from what its processes have reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rlray.core.procfs import process_use
from rlray.core.prometheus import Sample, merged, render
from rlray.core.state import View


def samples(view: View) -> Iterator[Sample]:
    """All of them, from a report of "metrics". Counters of calls are those of the callers that live."""
    yield from _tasks(view)
    yield from _processes(view)
    yield from _memory(view)
    node = view.node
    for name, total in node["total"].items():
        yield _gauge("rlray_resource_capacity", "Amount of a resource that the run has.", total, resource=name)
        free = node["free"].get(name, 0.0)
        yield _gauge("rlray_resource_free", "Amount of a resource that is free.", free, resource=name)
    yield _counter(
        "rlray_process_deaths_total", "Worker processes that have ended, for whatever reason.", node["deaths"]
    )
    yield from merged({part["pid"]: part["user"] for part in view.processes.values() if "user" in part})
    yield _gauge("rlray_start_time_seconds", "When the run began, since the epoch.", node["started"])


def _tasks(view: View) -> Iterator[Sample]:
    for name, states in view.task_counts().items():
        finished, failed = states.pop("FINISHED", 0), states.pop("FAILED", 0)
        for state, count in states.items():
            yield _gauge("rlray_tasks", "Calls that have not ended.", count, name=name, state=state)
        yield _counter("rlray_tasks_finished_total", "Calls that have returned.", finished, name=name)
        yield _counter("rlray_tasks_failed_total", "Calls that have raised, or were lost.", failed, name=name)
    seconds: Counter[str] = Counter()
    for part in view.processes.values():
        for name, (_, took) in part.get("finished", {}).items():
            seconds[name] += took
    for name, took in seconds.items():
        yield _counter("rlray_task_seconds_total", "Time that calls took that have returned.", took, name=name)
    actors = Counter((actor.class_name, actor.state) for actor in view.actors())
    for (class_name, state), count in actors.items():
        yield _gauge(
            "rlray_actors", "Actors; of the dead, the last thousand.", count, **{"class": class_name}, state=state
        )


def _processes(view: View) -> Iterator[Sample]:
    living = [worker for worker in view.workers() if worker.is_alive]
    for state, count in Counter(worker.state for worker in living if worker.worker_type == "WORKER").items():
        yield _gauge("rlray_workers", "Worker processes.", count, state=state)
    silent = sum(not worker.answers for worker in living)
    yield _gauge("rlray_processes_silent", "Processes that did not answer within a second.", silent)
    for worker in living:
        use = process_use(worker.pid)
        if use is not None:
            who = {"pid": str(worker.pid), "process": view.label(int(worker.worker_id, 16))}
            text = "Memory of a process, the pages of the store that it has touched included."
            yield _gauge("rlray_process_resident_memory_bytes", text, use.resident_bytes, **who)
            yield _counter("rlray_process_cpu_seconds_total", "CPU time of a process.", use.cpu_seconds, **who)


def _memory(view: View) -> Iterator[Sample]:
    store = view.node["store"]
    yield _gauge("rlray_store_capacity_bytes", "Size of the object store.", store["capacity"])
    yield _gauge("rlray_store_used_bytes", "What processes hold of the object store.", store["used"])
    yield _counter("rlray_store_spilled_bytes_total", "Bytes of values that went to disk.", store["spilled"])
    values, sizes = Counter[str](), Counter[str]()
    for _, where, count, size in view.made():
        values[where] += count
        sizes[where] += size
    for where, count in values.items():
        yield _gauge("rlray_values", "Values that somebody has a reference to.", count, where=where)
        yield _gauge("rlray_value_bytes", "Bytes of values.", sizes[where], where=where)
    for key, text in (("warm", "Free memory that processes keep."), ("arrays", "Living arrays of rlray.empty().")):
        total = sum(part.get(key, 0) for part in view.processes.values())
        yield _gauge(f"rlray_store_{key}_bytes", text, total)


def _gauge(name: str, text: str, value: float, /, **labels: str) -> Sample:
    return Sample(name, "gauge", text, labels, value)


def _counter(name: str, text: str, value: float, /, **labels: str) -> Sample:
    return Sample(name, "counter", text, labels, value)


def metrics_text(view: View) -> str:
    """All metrics of a run in Prometheus' text format, from a report of "metrics"."""
    return render(samples(view))
