"""The actors whose operations are plans: one for each resource, and one for batches of them all."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from . import (
    batch,
    containers,
    content,
    events,
    images,
    ingest_plans,
    leases,
    namespaces,
    sandboxes,
    snapshot_plans,
    undeleting,
)
from .actor import Plan, PlanActor
from .storage import StorageActor

__all__ = ["Plans"]


class Plans:
    def __init__(self, storage: StorageActor) -> None:
        self.namespaces = PlanActor(namespaces.PLANS, storage)
        self.images = PlanActor(images.PLANS, storage)
        self.containers = PlanActor(containers.PLANS, storage)
        self.sandboxes = PlanActor(sandboxes.PLANS, storage)
        self.content = PlanActor({**content.PLANS, **ingest_plans.PLANS}, storage)
        self.leases = PlanActor(leases.PLANS, storage)
        self.snapshots = PlanActor(snapshot_plans.PLANS, storage)
        self.collection = PlanActor(undeleting.PLANS, storage)
        self.events = PlanActor(events.PLANS, storage)
        self.batches = PlanActor(batch.PLANS, storage)
        self.all = [
            self.namespaces,
            self.images,
            self.containers,
            self.sandboxes,
            self.content,
            self.leases,
            self.snapshots,
            self.collection,
            self.events,
            self.batches,
        ]
        self.batchable: Mapping[type[msgspec.Struct], Plan] = {
            request: plan for actor in self.all for request, plan in actor.plans.items()
        }
