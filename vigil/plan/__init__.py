"""The plan: layers of YAML, read, merged, validated, and put in order.

``read`` is all that touches files and user databases; ``load`` is a pure function of what it brought. Both raise
PlanError with every problem that the plan has. ``vigil.plan.graph`` tells who waits for whom.
"""

from vigil.plan.loader import load
from vigil.plan.reader import read
from vigil.plan.types import Account, Credentials, Plan, Policy, Service, Sources

__all__ = ["Account", "Credentials", "Plan", "Policy", "Service", "Sources", "load", "read"]
