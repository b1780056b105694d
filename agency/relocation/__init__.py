"""Moving an application: the Conduit looks, the planner plans, Migrators do one task each, a Viaduct runs them durably.

Provisioning uses the same Migrators and the same Viaduct: to deploy is to move from nowhere.
"""
