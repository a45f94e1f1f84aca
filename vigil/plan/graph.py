"""Which service waits for which: needs, connected parts, ranks, cycles.

Nothing here recurses, so that a chain of thousands of services is as good as one of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vigil.plan.types import Plan, Service


def edges(services: Iterable[Service]) -> dict[str, frozenset[str]]:
    """For each service the names it waits for: ``after``, ``requires``, and whoever says ``before`` it.

    Unknown names and a service's own are left out: they are the business of the validation.
    """
    services = tuple(services)
    waits: dict[str, set[str]] = {service.name: set() for service in services}
    for service in services:
        waits[service.name].update(name for name in (*service.after, *service.requires) if name in waits)
        for name in service.before:
            if name in waits:
                waits[name].add(service.name)
    return {name: frozenset(names - {name}) for name, names in waits.items()}


def needs(plan: Plan) -> dict[str, frozenset[str]]:
    """For each service of the plan the names it waits for at its start (the stop goes the other way round)."""
    return edges(plan.services.values())


def order(waits: Mapping[str, frozenset[str]]) -> dict[str, tuple[int, int]]:
    """Component and rank of each service, from whom it waits for (``needs``).

    Services of different components have nothing to do with each other. Within one, rank 0 waits for nobody, and a
    service's rank is higher than that of all it waits for (the longest path down): stop the highest rank first.
    Components are numbered from 0 in the order of ``waits``.
    """
    component = _components(waits)
    rank = _ranks(waits)
    return {name: (component[name], rank[name]) for name in waits}


def cycles(waits: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """One cycle for every group of services that wait for each other: ``("a", "b", "a")`` is a waits for b, b for a."""
    found: list[tuple[str, ...]] = []
    position = {name: index for index, name in enumerate(waits)}
    for group in _knots(waits):
        start = min(group, key=position.__getitem__)
        found.append(_shortest_way_back(start, waits, set(group)))
    return found


def _components(waits: Mapping[str, frozenset[str]]) -> dict[str, int]:
    near: dict[str, set[str]] = {name: set() for name in waits}
    for name, others in waits.items():
        for other in others:
            near[name].add(other)
            near[other].add(name)
    component: dict[str, int] = {}
    count = 0
    for name in waits:
        if name in component:
            continue
        component[name] = count
        front = [name]
        while front:
            for other in near[front.pop()]:
                if other not in component:
                    component[other] = count
                    front.append(other)
        count += 1
    return component


def _ranks(waits: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """Longest path to a service that waits for nobody. A plan has no cycles: ``load`` refuses them."""
    waiting = {name: len(others) for name, others in waits.items()}
    waiters: dict[str, list[str]] = {name: [] for name in waits}
    for name, others in waits.items():
        for other in others:
            waiters[other].append(name)
    rank = dict.fromkeys(waits, 0)
    front = [name for name, count in waiting.items() if count == 0]
    while front:
        name = front.pop()
        for waiter in waiters[name]:
            rank[waiter] = max(rank[waiter], rank[name] + 1)
            waiting[waiter] -= 1
            if waiting[waiter] == 0:
                front.append(waiter)
    return rank


def _knots(waits: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of two or more services that can all reach each other: Tarjan's algorithm, with a stack of our own."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    on_path: set[str] = set()
    path: list[str] = []
    groups: list[list[str]] = []
    for root in waits:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        work = [(root, iter(sorted(waits[root])))]
        while work:
            name, rest = work[-1]
            other = next(rest, None)
            if other is None:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[name])
                if low[name] == index[name]:
                    group = [path.pop()]
                    while group[-1] != name:
                        group.append(path.pop())
                    on_path.difference_update(group)
                    if len(group) > 1:
                        groups.append(group)
            elif other not in index:
                index[other] = low[other] = len(index)
                path.append(other)
                on_path.add(other)
                work.append((other, iter(sorted(waits[other]))))
            elif other in on_path:
                low[name] = min(low[name], index[other])
    return groups


def _shortest_way_back(start: str, waits: Mapping[str, frozenset[str]], members: set[str]) -> tuple[str, ...]:
    came_from: dict[str, str] = {}
    front = [start]
    while front:
        following: list[str] = []
        for name in front:
            for other in sorted(waits[name] & members):
                if other == start:
                    way = [name]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return (*reversed(way), start)
                if other not in came_from:
                    came_from[other] = name
                    following.append(other)
        front = following
    raise AssertionError(f"{start} is in no cycle")
