"""The plan: layers of YAML, read, merged, validated, and put in order.

``read`` is all that touches files and user databases; ``load`` is a pure function of what it brought.
"""

from vigil.plan.types import Account, Credentials, Plan, Policy, Service, Sources

__all__ = ["Account", "Credentials", "Plan", "Policy", "Service", "Sources"]
